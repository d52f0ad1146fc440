"""Goes on with the image tower alone, the text tower frozen, until its features tell people apart.

Captions and names leave little of a person in the features: after 800 steps a masked face crop found
another crop of its person among 100 in one case of ten. Here the tower also learns to foretell, from a crop
or a frame, what the identity net says of the aligned face: a target of 128 numbers a picture instead of one
name. The second judge takes no part, so that what it says of generated pictures is not learned from this.
Captions stay as they are: the text tower does not move, and nothing that depends on it (the UNet) has to be
trained again.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection

from components.core import Progress, atomic_path, sha256_file
from components.portraits.pretrain.batches import aligned_face
from components.portraits.pretrain.clip import (
    DENSE_FROM,
    Temperature,
    draw,
    image_tokens,
    load_text_encoder,
    load_tokenizer,
    tokenize,
)
from components.portraits.pretrain.fit import Task, fit
from components.portraits.pretrain.measure import clip_figures, onnx_embedder
from components.portraits.pretrain.workshop import Workshop, save_half

CAPTIONS_SHARE, CAPTIONS_WEIGHT = 0.375, 0.2
"""Share of whole frames in a batch, which have captions; the rest are face crops. Weight of their loss."""


def train_vision(shop: Workshop) -> dict[str, float]:
    """Trains the image tower, writes `image_encoder/` and measures both towers again."""
    torch.manual_seed(shop.seed("weights", "vision"))
    vision = CLIPVisionModelWithProjection.from_pretrained(
        shop.out / "image_encoder", dtype=torch.float32, local_files_only=True
    )
    text, tokenizer, wanted = load_text_encoder(shop), load_tokenizer(shop), known_faces(shop)
    width = vision.config.hidden_size
    head = nn.ModuleDict(
        {
            "temperature": Temperature(20.0),
            "pooled": nn.Linear(width, wanted.shape[1], bias=False),
            "patches": nn.Linear(width, wanted.shape[1], bias=False),
        }
    )
    batch = shop.config.vision.batch
    told = max(2, round(CAPTIONS_SHARE * batch))

    def loss(rng: np.random.Generator, done: float) -> dict[str, torch.Tensor]:
        picked = shop.picks(rng, batch)
        pictures, sentences = draw(shop, picked, told, rng)
        tokens = image_tokens(vision, pictures, keep=0.5 if done < DENSE_FROM else 1.0)
        features = vision.vision_model.post_layernorm(tokens[:, 0])
        faces = torch.from_numpy(wanted[picked])
        pooled = 1 - F.cosine_similarity(head["pooled"](features).float(), faces).mean()
        patches = 1 - F.cosine_similarity(head["patches"](tokens[:, 1:].mean(1)).float(), faces).mean()
        with torch.no_grad():
            said = F.normalize(text(**tokenize(tokenizer, sentences)).pooler_output)
        logits = head["temperature"](F.normalize(vision.visual_projection(features[:told]).float()) @ said.T)
        target = torch.arange(told)
        captions = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        total = pooled + 0.5 * patches + CAPTIONS_WEIGHT * captions
        return {"loss": total, "captions": captions, "pooled": pooled, "patches": patches}

    task = Task("vision", nn.ModuleDict({"vision": vision, "head": head}), loss)
    fit(task, shop.config.vision, shop.work / "checkpoints", shop.seed("vision"), shop.config.save_every)
    save_half(vision, shop.out / "image_encoder")
    return clip_figures(shop, text, vision, tokenizer)


def known_faces(shop: Workshop) -> np.ndarray:
    """float32 (N, D): the identity net's mean embedding of the person in each training picture, unit norm.

    The mean over a person's pictures holds less of pose and light than that of the one picture. Kept on disk.
    """
    onnx = shop.out / "face_pack" / "identity.onnx"
    path = shop.work / f"faces-{sha256_file(onnx)[:12]}.npy"
    if not path.is_file():
        embed, people, found = onnx_embedder(onnx), shop.people, []
        with Progress("known faces", len(people), "pictures") as progress:
            for start in range(0, len(people), 64):
                indices = range(start, min(start + 64, len(people)))
                found.append(embed([aligned_face(people.pictures[i], people.landmarks[i]) for i in indices]))
                progress.advance(len(indices))
        mean = np.concatenate(found).reshape(people.count, people.views, -1).mean(1)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.repeat(mean, people.views, 0).astype(np.float32))
    return np.load(path)
