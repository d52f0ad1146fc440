"""Trains the autoencoder: 64 px pictures to 16 x 16 x 16 latents and back, keeping what tells people apart.

The encoder is linear and set, not learned (see `linear.py`); the decoder is trained. Loss: absolute and
squared error, more in the face than around it; differences of neighbouring pixels; the identity net's
embedding of the picture that comes back. `scaling_factor` is measured to unit standard deviation.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from components.core import face_weight
from components.portraits.architecture import build_vae
from components.portraits.face_nets import FACE_SIZE
from components.portraits.pretrain.batches import (
    ARCFACE_TEMPLATE,
    FACE_WEIGHT,
    frame,
    from_m11,
    similarity,
    to_m11,
)
from components.portraits.pretrain.fit import Task, fit
from components.portraits.pretrain.identity import load_identity
from components.portraits.pretrain.linear import make_encoder_linear, principal_components
from components.portraits.pretrain.measure import reconstruction_figures
from components.portraits.pretrain.workshop import Workshop, save_half

EDGE_WEIGHT, IDENTITY_WEIGHT = 0.5, 0.05
IDENTITY_FROM = 0.25
"""Share of training before the identity term joins: blurred first pictures say nothing of anybody."""


def train_vae(shop: Workshop) -> dict[str, float]:
    """Sets the encoder, trains the decoder, writes `vae/` and measures it on held-out people."""
    vae, identity = start_vae(shop), load_identity(shop)
    batch, watched = shop.config.vae.batch, _watched(shop)

    def loss(rng: np.random.Generator, done: float) -> dict[str, torch.Tensor]:
        cuts = [frame(shop.people, index, shop.size, rng) for index in shop.picks(rng, batch)]
        images, landmarks = to_m11([cut[0] for cut in cuts]), np.stack([cut[1] for cut in cuts])
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.sample()
        decoded = vae.decode(latents).sample
        losses = picture_losses(decoded, images, landmarks)
        total = losses["pixels"] + EDGE_WEIGHT * losses["edges"]
        if done > IDENTITY_FROM:
            some = slice(0, max(2, batch // 4))
            losses["identity"] = identity_loss(identity, decoded[some], images[some], landmarks[some])
            total = total + IDENTITY_WEIGHT * losses["identity"]
        return {"loss": total} | losses

    def look(name: str) -> None:
        with torch.no_grad():
            decoded = vae.decode(vae.encode(watched).latent_dist.mean).sample
        shop.save_grid(f"vae-{name}", from_m11(torch.cat([watched, decoded])))

    task = Task("vae", nn.ModuleDict({"vae": vae}), loss, look)
    fit(task, shop.config.vae, shop.work / "checkpoints", shop.seed("vae"), shop.config.save_every)
    save_half(vae, shop.out / "vae")
    return reconstruction_figures(shop, vae)


def start_vae(shop: Workshop) -> Any:
    """An autoencoder with its final, linear encoder and scaling factor, and an untrained decoder."""
    torch.manual_seed(shop.seed("weights", "vae"))
    vae = build_vae(shop.config.architecture)
    rng = shop.generator("components")
    cuts = [frame(shop.people, index, shop.size, rng)[0] for index in shop.picks(rng, 400)]
    patch = 2 ** (len(vae.config.block_out_channels) - 1)
    make_encoder_linear(vae, *principal_components(to_m11(cuts), patch, vae.config.latent_channels))
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    vae.register_to_config(scaling_factor=scaling_factor(shop, vae))
    return vae


def picture_losses(
    decoded: torch.Tensor, images: torch.Tensor, landmarks_xy: np.ndarray
) -> dict[str, torch.Tensor]:
    """Pixel and edge terms of (B, 3, H, W) pictures, weighted towards the face."""
    weight = torch.from_numpy(face_weight(landmarks_xy, images.shape[-1], FACE_WEIGHT))
    difference = decoded - images
    pixels = (weight * (difference.abs() + 2 * difference**2)).mean()
    across = weight[..., 1:] * (difference[..., 1:] - difference[..., :-1])
    down = weight[..., 1:, :] * (difference[..., 1:, :] - difference[..., :-1, :])
    return {"pixels": pixels, "edges": across.abs().mean() + down.abs().mean(), "mse": (difference**2).mean()}


def aligned(images: torch.Tensor, landmarks_xy: np.ndarray) -> torch.Tensor:
    """Faces of (B, 3, H, W) pictures on the template: (B, 3, 112, 112), differentiable in the pictures."""
    size = images.shape[-1]
    grid = torch.stack(torch.meshgrid(*[torch.arange(FACE_SIZE).float()] * 2, indexing="xy"), -1)
    grids = []
    for points in landmarks_xy:
        matrix = similarity(ARCFACE_TEMPLATE, points)  # template pixels to picture pixels
        places = grid @ torch.from_numpy(matrix[:, :2]).T + torch.from_numpy(matrix[:, 2])
        grids.append((2 * places + 1) / size - 1)
    return F.grid_sample(images, torch.stack(grids), align_corners=False)


def identity_loss(
    net: nn.Module, decoded: torch.Tensor, images: torch.Tensor, landmarks_xy: np.ndarray
) -> torch.Tensor:
    """1 - cosine between the identity net's embeddings of a picture before and after."""
    with torch.no_grad():
        wanted = net(aligned(images, landmarks_xy))
    return 1 - F.cosine_similarity(net(aligned(decoded, landmarks_xy)), wanted).mean()


@torch.no_grad()
def scaling_factor(shop: Workshop, vae: Any) -> float:
    """1 / standard deviation of the latents over training pictures."""
    rng = shop.generator("scaling")
    cuts = [frame(shop.people, index, shop.size, rng)[0] for index in shop.picks(rng, 128)]
    return float(1 / vae.encode(to_m11(cuts)).latent_dist.sample().std())


def _watched(shop: Workshop) -> torch.Tensor:
    step = shop.heldout.views
    return to_m11(
        [frame(shop.heldout, i * step, shop.size, None)[0] for i in range(min(10, shop.heldout.count))]
    )
