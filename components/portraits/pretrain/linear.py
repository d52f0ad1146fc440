"""A linear encoder inside an `AutoencoderKL`: the principal components of small patches of pictures.

Learning an encoder costs more time than a laptop has: after 2,800 steps of 8 pictures a learned one (8
channels, 28.4 dB) was behind the principal components of 4 x 4 patches (8 channels: 28.7 dB, 16 channels:
34.2 dB). So the encoder is not learned: its weights are set so that it computes these components, and the
decoder alone is trained. It stays a plain `AutoencoderKL`.

How a convolutional encoder is made linear:
- residual blocks pass their input on, because their second convolution is zero;
- each strided convolution gathers 2 x 2 cells into channels, so that after two a cell holds its whole patch;
- SiLU(y) - SiLU(-y) = y, so the last stage carries each component twice, with both signs;
- large constant channels fix the spread that the last GroupNorm divides by, whatever the picture.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

CONSTANT = 1000.0
"""Of the channels that fix the GroupNorm; components are a thousandth of it, so the norm moves by 1e-6."""
POSTERIOR_LOG_VARIANCE = -9.0
"""The decoder sees latents with a noise of 0.01, a thirtieth of the finest component's spread."""
WHITENING = 0.1
"""Power of a component's variance that it is divided by: 0 keeps its size, 0.5 whitens it.

At 0.25 a UNet of 1,000 steps drew cracks for eyes: fine components weighed four times as much as in pixels.
"""


def principal_components(pictures_m11: torch.Tensor, patch: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the matrix from patches to latents, and the mean patch.

    Each component is divided by a small power of its variance (`WHITENING`): fine components would drown in
    the noise of diffusion at their own size, and weigh as much as the coarse ones if they were whitened.

    Args:
        pictures_m11: (B, 3, H, W) in [-1, 1].
        patch: Side of a patch, pixels.
        count: Number of components.

    Returns:
        (count, 3 patch^2) and (3 patch^2,), float64; patches are ordered (row, column, colour).
    """
    batch, colours, height, width = pictures_m11.shape
    cells = pictures_m11.reshape(batch, colours, height // patch, patch, width // patch, patch)
    patches = cells.permute(0, 2, 4, 3, 5, 1).reshape(-1, patch * patch * colours).double().numpy()
    variances, vectors = np.linalg.eigh(np.cov(patches.T))
    strongest = np.argsort(variances)[::-1][:count]
    matrix = vectors[:, strongest].T / np.maximum(variances[strongest], 1e-8)[:, None] ** WHITENING
    return matrix, patches.mean(0)


@torch.no_grad()
def make_encoder_linear(vae: Any, matrix: np.ndarray, mean: np.ndarray) -> None:
    """Sets the weights of `vae.encoder` so that it gives `matrix @ (patch - mean)` in every cell.

    Args:
        vae: An `AutoencoderKL` of one residual block a level, without attention.
        matrix: (components, 3 patch^2), as `principal_components` gives it.
        mean: (3 patch^2,).

    Raises:
        ValueError: The encoder has too few channels to carry a patch.
    """
    _check_widths(vae, len(matrix))
    encoder, held = vae.encoder, 3
    for module in [*encoder.modules(), vae.quant_conv]:
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
    _copy_channels(encoder.conv_in, 3)
    _copy_channels(vae.quant_conv, 2 * len(matrix))
    for block in encoder.down_blocks[:-1]:
        if block.resnets[0].conv_shortcut is not None:
            _copy_channels(block.resnets[0].conv_shortcut, held)
        _gather(block.downsamplers[0].conv, held)
        held *= 4
    order = _held_order(len(encoder.down_blocks) - 1)
    spread = _project(encoder, matrix[:, order], mean[order], vae.config.norm_num_groups)
    _read_out(encoder.conv_out, len(matrix), vae.config.norm_num_groups, spread)


def _check_widths(vae: Any, components: int) -> None:
    channels, groups = vae.config.block_out_channels, vae.config.norm_num_groups
    needed = [3 * 4 ** (level + 1) for level in range(len(channels) - 1)]
    constants = channels[-1] // groups - 2 * (components // groups)
    wide = all(have >= need for have, need in zip(channels, needed, strict=False))
    if not wide or channels[-1] == channels[-2] or components % groups or constants < 2 or constants % 2:
        raise ValueError(
            f"block_channels {channels} with {groups} norm groups cannot carry {components} components: the "
            f"widths must be at least {needed}, and the last one another than the one before, with room for "
            "each component twice and two constants a group"
        )


def _middle(conv: nn.Conv2d) -> torch.Tensor:
    """The (out, in) matrix of a convolution's middle tap, as a view."""
    return conv.weight[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2]


def _copy_channels(conv: nn.Conv2d, count: int) -> None:
    _middle(conv)[:count, :count] = torch.eye(count)


def _gather(conv: nn.Conv2d, held: int) -> None:
    """Makes a strided convolution put the 2 x 2 cells below it side by side in channels."""
    for row in (0, 1):
        for column in (0, 1):
            start = (2 * row + column) * held
            conv.weight[start : start + held, :held, row, column] = torch.eye(held)


def _held_order(levels: int) -> np.ndarray:
    """For each channel that holds a part of a patch: its place in the patch (row, column, colour)."""
    side = 2**levels
    order = np.empty(3 * side * side, int)
    for row in range(side):
        for column in range(side):
            places = [2 * (row >> level & 1) + (column >> level & 1) for level in range(levels)]
            channel = 3 * sum(place * 4**level for level, place in enumerate(places))
            order[channel : channel + 3] = 3 * (row * side + column) + np.arange(3)
    return order


def _project(encoder: Any, matrix: np.ndarray, mean: np.ndarray, groups: int) -> float:
    """Sets the last block's shortcut: components with both signs, and constants, in each norm group.

    Returns:
        The spread that the last GroupNorm will find in each group.
    """
    shortcut = encoder.down_blocks[-1].resnets[0].conv_shortcut
    size, share = shortcut.out_channels // groups, len(matrix) // groups
    weight, offset = torch.from_numpy(matrix).float(), torch.from_numpy(-matrix @ mean).float()
    for group in range(groups):
        some = slice(group * share, (group + 1) * share)
        for sign, start in ((1, group * size), (-1, group * size + share)):
            _middle(shortcut)[start : start + share, : weight.shape[1]] = sign * weight[some]
            shortcut.bias[start : start + share] = sign * offset[some]
        shortcut.bias[group * size + 2 * share : (group + 1) * size : 2] = CONSTANT
        shortcut.bias[group * size + 2 * share + 1 : (group + 1) * size : 2] = -CONSTANT
    return CONSTANT * ((size - 2 * share) / size) ** 0.5


def _read_out(conv_out: Any, components: int, groups: int, spread: float) -> None:
    size, share = conv_out.in_channels // groups, components // groups
    for component in range(components):
        start = component // share * size + component % share
        _middle(conv_out)[component, start] = spread
        _middle(conv_out)[component, start + share] = -spread
    conv_out.bias[components:] = POSTERIOR_LOG_VARIANCE
