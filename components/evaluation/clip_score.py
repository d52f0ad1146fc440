"""CLIP's opinion of pictures: CLIP-T, the cosine of a picture with its prompt; features for FID and KID."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from components.model import ModelConfig

OWN_PAIR = "base"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipScorer:
    """CLIP's opinion: pictures and texts as unit vectors of one space.

    Args:
        images: (B, H, W, 3) uint8 RGB to (B, D).
        texts: Sentences to (B, D); None where only pictures are looked at.
        name: Which CLIP, for the report.
    """

    def __init__(
        self,
        images: Callable[[NDArray[np.uint8]], NDArray],
        texts: Callable[[list[str]], NDArray] | None,
        name: str,
    ) -> None:
        self._images, self._texts, self.name = images, texts, name

    def images(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Returns (N, D) unit vectors of pictures of one size."""
        parts = [self._images(np.stack(pictures[at : at + 32])) for at in range(0, len(pictures), 32)]
        return _unit(np.concatenate(parts))

    def texts(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        """Returns (N, D) unit vectors."""
        assert self._texts is not None
        return _unit(self._texts(list(sentences)))


def _unit(vectors: NDArray) -> NDArray[np.float64]:
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def load_clip(clip: str | None, model: "ModelConfig", device: str = "cpu") -> ClipScorer | None:
    """Returns the CLIP that judges obedience.

    Args:
        clip: Folder or hub id of a whole CLIP; "base" takes the base's own two towers, which must share a
            space (the text tower of a Stable Diffusion alone lacks CLIP's text projection, so this is said,
            never guessed); None measures no CLIP-T.
        model: Where the base is.
        device: Where it computes.

    Raises:
        ValueError: The base's towers have no common width.
    """
    if clip is None:
        return None
    return _own_pair(model, device) if clip == OWN_PAIR else _whole_clip(clip, device)


def load_image_tower(model: "ModelConfig", device: str = "cpu") -> ClipScorer:
    """Returns the configured CLIP's image tower alone, for features."""
    tower, source = _image_tower(model, device)
    return ClipScorer(tower, None, source)


def _image_tower(model: "ModelConfig", device: str) -> tuple[Callable[[NDArray[np.uint8]], NDArray], str]:
    import torch
    from transformers import CLIPVisionModelWithProjection

    own = model.image_encoder is None
    source, subfolder = (model.base, "image_encoder") if own else (str(model.image_encoder), "")
    encoder = CLIPVisionModelWithProjection.from_pretrained(source, subfolder=subfolder, use_safetensors=True)
    encoder = encoder.float().to(device).eval()
    mean, std = _statistics(Path(source) / subfolder)

    @torch.no_grad()
    def images(pictures_uint8: NDArray[np.uint8]) -> NDArray:
        pixels = _pixels(pictures_uint8, encoder.config.image_size, mean, std).to(device)
        return np.asarray(encoder(pixel_values=pixels).image_embeds.cpu().numpy())

    return images, f"image encoder of {Path(source).name}" if own else source


def _own_pair(model: "ModelConfig", device: str) -> ClipScorer:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    images, _ = _image_tower(model, device)
    text = CLIPTextModel.from_pretrained(model.base, subfolder="text_encoder", use_safetensors=True)
    text = text.float().to(device).eval()
    tokenizer = CLIPTokenizer.from_pretrained(model.base, subfolder="tokenizer")
    width = images(np.zeros((1, 64, 64, 3), np.uint8)).shape[1]
    if width != text.config.hidden_size:
        raise ValueError(
            f"evaluation.clip is {OWN_PAIR!r}, but the base's towers end in {width} and "
            f"{text.config.hidden_size} numbers: name a whole CLIP"
        )

    @torch.no_grad()
    def texts(sentences: list[str]) -> NDArray:
        tokens = tokenizer(
            sentences, padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        return np.asarray(text(input_ids=tokens.input_ids.to(device)).pooler_output.cpu().numpy())

    return ClipScorer(images, texts, f"the two towers of {Path(model.base).name}")


def _whole_clip(source: str, device: str) -> ClipScorer:
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    clip = CLIPModel.from_pretrained(source, use_safetensors=True).float().to(device).eval()
    tokenizer = CLIPTokenizer.from_pretrained(source)
    mean, std = _statistics(Path(source))

    @torch.no_grad()
    def images(pictures_uint8: NDArray[np.uint8]) -> NDArray:
        pixels = _pixels(pictures_uint8, clip.config.vision_config.image_size, mean, std).to(device)
        return np.asarray(
            clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output).cpu().numpy()
        )

    @torch.no_grad()
    def texts(sentences: list[str]) -> NDArray:
        tokens = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt").to(device)
        return np.asarray(clip.text_projection(clip.text_model(**tokens).pooler_output).cpu().numpy())

    return ClipScorer(images, texts, source)


def _pixels(
    pictures_uint8: NDArray[np.uint8], size: int, mean: Sequence[float], std: Sequence[float]
) -> "Tensor":
    """Returns (B, 3, size, size): resized (bicubic, antialiased) and normalised."""
    import torch
    from torch.nn import functional as F

    pixels = torch.from_numpy(np.ascontiguousarray(pictures_uint8)).permute(0, 3, 1, 2).float() / 255
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return (pixels - pixels.new_tensor(mean).view(1, 3, 1, 1)) / pixels.new_tensor(std).view(1, 3, 1, 1)


def _statistics(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std of RGB that an encoder's own preprocessor states; CLIP's else."""
    file = folder / "preprocessor_config.json"
    stated = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return stated.get("image_mean", CLIP_MEAN), stated.get("image_std", CLIP_STD)
