"""The linear encoder gives the principal components, through the whole of diffusers' encoder."""

import numpy as np
import pytest
import torch

from components.portraits.architecture import build_vae
from components.portraits.config import BaseArchitecture, VaeArchitecture
from components.portraits.pretrain.linear import WHITENING, make_encoder_linear, principal_components


def pictures(count: int) -> torch.Tensor:
    noise = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1).clamp(-1, 1)


def patches_of(images: torch.Tensor) -> np.ndarray:
    """(B, 3, H, W) -> (B, H/4, W/4, 48) in the order row, column, colour, by plain slicing."""
    side = images.shape[-1] // 4
    cells = [
        [
            images[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].permute(0, 2, 3, 1).flatten(1)
            for j in range(side)
        ]
        for i in range(side)
    ]
    return torch.stack([torch.stack(row, 1) for row in cells], 1).double().numpy()


def linear_vae(channels: tuple[int, ...] = (12, 48, 64), components: int = 8, groups: int = 2):
    config = VaeArchitecture(block_channels=channels, latent_channels=components, norm_groups=groups)
    return build_vae(BaseArchitecture(picture_size=32, vae=config))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_encoder_gives_the_components_of_each_patch(groups: int):
    images, vae = pictures(20), linear_vae(groups=groups)
    matrix, mean = principal_components(images, 4, 8)
    make_encoder_linear(vae, matrix, mean)
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mean.permute(0, 2, 3, 1).double().numpy()
    np.testing.assert_allclose(latents, (patches_of(images) - mean) @ matrix.T, atol=1e-5)


def test_components_are_uncorrelated_and_whitened_in_part():
    images = pictures(50)
    matrix, mean = principal_components(images, 4, 8)
    latents = ((patches_of(images) - mean) @ matrix.T).reshape(-1, 8)
    covariance = np.cov(latents.T)
    variances = np.linalg.eigvalsh(np.cov(patches_of(images).reshape(-1, 48).T))[::-1][:8]
    np.testing.assert_allclose(covariance, np.diag(variances ** (1 - 2 * WHITENING)), atol=1e-8)


def test_an_encoder_too_narrow_for_a_patch_is_refused():
    with pytest.raises(ValueError, match=r"\(8, 48, 64\).*at least \[12, 48\]"):
        make_encoder_linear(linear_vae((8, 48, 64)), np.zeros((8, 48)), np.zeros(48))
