"""The public configurations of full-size Stable Diffusion UNets, for tests and benchmarks."""

from typing import Any

import torch

COMMON: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "layers_per_block": 2,
}
SD15: dict[str, Any] = COMMON | {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD21: dict[str, Any] = COMMON | {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}


def full_size_unet(config: dict[str, Any]) -> Any:
    """A UNet on the meta device: all shapes, no memory."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def filled(unet: Any) -> Any:
    """Gives a UNet on the meta device weights, quickly: one block of random numbers over and over."""
    unet = unet.to_empty(device="cpu")
    block = torch.randn(1 << 20) * 0.02
    for tensor in [*unet.parameters(), *unet.buffers()]:
        flat = tensor.data.view(-1)
        for at in range(0, flat.numel(), block.numel()):
            part = flat[at : at + block.numel()]
            part.copy_(block[: part.numel()])
    return unet.requires_grad_(False).eval()
