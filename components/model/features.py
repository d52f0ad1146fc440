"""Features of several layers of a frozen CLIP image encoder.

Inside: resizing and normalising pictures as the encoder wants them, hidden states of the chosen layers,
pooling of the patch map. Not inside: finding and masking the face (room `face`), turning features into
words (`adapters.py`).

Legend: B batch, m layers, T tokens a layer (1 + patch_grid^2, CLS first), D width of the encoder, S picture
side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# OpenAI's CLIP statistics of RGB in [0, 1]; OpenCLIP uses the same.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def pool_tokens(hidden_BND: Tensor, patch_grid: int) -> Tensor:
    """Keeps CLS and average-pools the patch map to `patch_grid` x `patch_grid`, row major.

    Args:
        hidden_BND: (B, 1 + s*s, D) hidden states of one layer, CLS first.
        patch_grid: Cells a side, at most s.

    Returns:
        (B, 1 + patch_grid^2, D).

    Raises:
        ValueError: The patches are no square map, or the grid is finer than the map.
    """
    batch, tokens, width = hidden_BND.shape
    side = round((tokens - 1) ** 0.5)
    if side * side != tokens - 1 or patch_grid > side:
        raise ValueError(f"cannot pool {tokens - 1} patches to a {patch_grid} x {patch_grid} grid")
    patches = hidden_BND[:, 1:].transpose(1, 2).reshape(batch, width, side, side)
    pooled = F.adaptive_avg_pool2d(patches, patch_grid).flatten(2).transpose(1, 2)
    return torch.cat([hidden_BND[:, :1], pooled], dim=1)


class FeatureExtractor:
    """Identity crops -> raw multi-layer features.

    Args:
        image_encoder: A `CLIPVisionModelWithProjection` (frozen here, put in eval mode).
        layers: Indices into its `hidden_states`.
        patch_grid: See `pool_tokens`.
        mean, std: Statistics of RGB in [0, 1] that the encoder was trained with.
    """

    def __init__(
        self,
        image_encoder: Any,
        layers: Sequence[int],
        patch_grid: int = 1,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        self.image_encoder = image_encoder.requires_grad_(False).eval()
        self.layers, self.patch_grid = tuple(layers), patch_grid
        self.size: int = image_encoder.config.image_size
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def fill_rgb_uint8(self) -> tuple[int, int, int]:
        """The encoder's mean colour: what masked-out pixels of an identity crop are filled with."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, T, D) of one photo's features."""
        return len(self.layers), 1 + self.patch_grid**2, self.image_encoder.config.hidden_size

    def preprocess(self, images_uint8: np.ndarray) -> Tensor:
        """Turns RGB pictures into the encoder's pixel values, on its device and in its dtype.

        Args:
            images_uint8: (B, H, W, 3) RGB; resized (bicubic, antialiased) if it is not S x S.

        Returns:
            (B, 3, S, S).

        Raises:
            ValueError: Not a uint8 array of that shape.
        """
        if images_uint8.dtype != np.uint8 or images_uint8.ndim != 4 or images_uint8.shape[-1] != 3:
            found = f"{images_uint8.dtype} {images_uint8.shape}"
            raise ValueError(f"identity crops must be uint8 (B, H, W, 3), found {found}")
        device, dtype = self.image_encoder.device, self.image_encoder.dtype
        pixels = (
            torch.from_numpy(np.ascontiguousarray(images_uint8)).to(device).permute(0, 3, 1, 2).float() / 255
        )
        if pixels.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean = pixels.new_tensor(self.mean).view(1, 3, 1, 1)
        std = pixels.new_tensor(self.std).view(1, 3, 1, 1)
        return ((pixels - mean) / std).to(dtype)

    @torch.no_grad()
    def __call__(self, pixel_values: Tensor) -> Tensor:
        """Returns the raw features (B, m, T, D) of preprocessed pictures (B, 3, S, S)."""
        hidden_states = self.image_encoder(pixel_values, output_hidden_states=True).hidden_states
        return torch.stack(
            [pool_tokens(hidden_states[layer], self.patch_grid) for layer in self.layers], dim=1
        )
