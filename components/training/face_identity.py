"""What the identity loss looks through: latents -> picture -> aligned face -> identity, all differentiable.

Decoding is most of its cost. Three ways to pay less: a fraction of the batch (`FaceLossConfig.fraction`), a
window of the latents around the face (`decoded: face`), a tiny decoder (`tiny_decoder`).

Shapes: n faces, C h w latents, H W pixels, s = H / h the decoder's scale, D identity width.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.training.config import FaceLossConfig
from components.training.job import Job


class FaceIdentity(nn.Module):
    """Latents -> picture -> aligned face -> identity.

    Args:
        decoder: The base's VAE, or an `AutoencoderTiny` of the same latent space; frozen.
        arcface: `DifferentiableArcFace`.
        config: What of the picture is decoded.
    """

    def __init__(self, decoder: Any, arcface: Any, config: FaceLossConfig | None = None) -> None:
        super().__init__()
        self.decoder, self.arcface = decoder.requires_grad_(False).eval(), arcface
        self._config = config or FaceLossConfig()

    def forward(self, latents: Tensor, landmarks_xy: Tensor) -> Tensor:
        """Returns unit-norm embeddings (n, D) of latents (n, C, h, w), scaled as the UNet sees them.

        Args:
            latents: Estimates of x_0.
            landmarks_xy: (n, 5, 2) in pixels of the target picture, found without gradient.
        """
        from components.face import warp_faces

        if self._config.decoded == "face":
            scale = 2 ** (len(_widths(self.decoder.config)) - 1)
            latents, landmarks_xy = face_windows(latents, landmarks_xy, self._config.face_window, scale)
        return self.arcface.embed(warp_faces(self.pictures(latents), landmarks_xy))

    def pictures(self, latents: Tensor) -> Tensor:
        """Decodes latents (n, C, h, w), scaled as the UNet sees them: (n, 3, H, W) float32, about [-1, 1]."""
        scaled = latents.to(self.decoder.dtype) / self.decoder.config.scaling_factor
        return self.decoder.decode(scaled).sample.float()


def check_width(identity_nD: Tensor, embedding_nD: Tensor) -> None:
    """Raises a ValueError if the shards' identities are of another network than the loss looks through."""
    if embedding_nD.shape != identity_nD.shape:
        raise ValueError(
            f"the shards' identities are {identity_nD.shape[1]} wide, the identity network gives "
            f"{embedding_nD.shape[1]}: the shards were prepared with another network"
        )


def face_windows(latents: Tensor, landmarks_xy: Tensor, share: float, scale: int) -> tuple[Tensor, Tensor]:
    """Cuts a square window of the latents around the middle of each aligned face.

    Args:
        latents: (n, C, h, w).
        landmarks_xy: (n, 5, 2) pixels of the whole picture.
        share: Side of the window over the shorter side of the latents.
        scale: s, pixels a latent.

    Returns:
        (n, C, k, k), and the landmarks in pixels of the decoded windows. A window that would reach beyond
        the edge is moved inside.
    """
    from components.face import aligned_centres

    height, width = latents.shape[-2:]
    side = max(1, min(height, width, round(share * min(height, width))))
    middle = aligned_centres(landmarks_xy).to(latents.device) / scale  # (n, 2) in latents
    limit = torch.tensor([width - side, height - side], device=middle.device)
    corner = (middle - side / 2).round().long().clamp(min=torch.zeros_like(limit), max=limit)
    windows = [
        one[:, y : y + side, x : x + side] for one, (x, y) in zip(latents, corner.tolist(), strict=True)
    ]
    return torch.stack(windows), landmarks_xy - scale * corner[:, None].to(landmarks_xy.dtype)


def load_face_identity(job: Job, vae: Any, device: torch.device, dtype: torch.dtype) -> FaceIdentity | None:
    """Loads what the identity loss looks through; None if no term needs it.

    Raises:
        ValueError: No identity network, or a tiny decoder that does not fit the base.
    """
    from components.face import identity_onnx_path, load_arcface

    config = job.config.face_loss
    if not job.config.looks_at_faces:
        return None
    base = Path(job.model.base)
    path = identity_onnx_path(job.face, base if base.is_dir() else None)
    decoder = vae if config.tiny_decoder is None else load_tiny_decoder(config.tiny_decoder, vae, dtype)
    return FaceIdentity(decoder.to(device), load_arcface(path).to(device), config)


def load_tiny_decoder(source: str, vae: Any, dtype: torch.dtype) -> Any:
    """Loads an `AutoencoderTiny` in the VAE's stead; from safetensors alone.

    Raises:
        ValueError: There is none, or its latents are not those of the VAE.
    """
    from diffusers import AutoencoderTiny

    try:
        tiny = AutoencoderTiny.from_pretrained(source, torch_dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"no AutoencoderTiny at train.face_loss.tiny_decoder = {source}: {error}") from error
    found = tiny.config.latent_channels, len(_widths(tiny.config))
    expected = vae.config.latent_channels, len(_widths(vae.config))
    if found != expected:
        raise ValueError(
            f"the tiny decoder {source} has {found[0]} latent channels and {found[1]} levels, the base's VAE "
            f"{expected[0]} and {expected[1]}: it belongs to another base"
        )
    return tiny


def _widths(config: Any) -> Any:
    """Channels by level: a VAE and an `AutoencoderTiny` name them differently."""
    named = config.get("block_out_channels") if "decoder_block_out_channels" not in config else None
    return named or config["decoder_block_out_channels"]
