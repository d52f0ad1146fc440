"""The layers of a UNet that an adapter takes hold of, by their place and shape: it is made to fit these."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from components.model.config import ModelConfig

ADDED = (".base_layer", ".lora_", ".processor.")
"""In the names of modules that peft, or an adapter, has put into a UNet."""


@dataclass(frozen=True)
class Layer:
    """One layer of a UNet by its place.

    Attributes:
        name: Path of the layer in the UNet, e.g. "mid_block.attentions.0.transformer_blocks.0.attn2".
        level: Resolution level, 0 = finest.
    """

    name: str
    level: int

    @property
    def key(self) -> str:
        """The name as a module name, which may hold no dots."""
        return self.name.replace(".", "/")


@dataclass(frozen=True)
class CrossAttention(Layer):
    """One cross-attention layer, C channels wide."""

    channels: int


def cross_attentions(unet: nn.Module) -> list[CrossAttention]:
    """Lists the cross-attention layers of a diffusers UNet, in module order."""
    found = []
    for name, module in unet.named_modules():
        if name.endswith(".attn2") and hasattr(module, "to_k"):
            found.append(CrossAttention(name, _level(unet, name), plain(module.to_k).out_features))
    if not found:
        raise ValueError(
            f"{type(unet).__name__} has no cross-attention layers (attn2): PhotoVerse has no place in it"
        )
    return found


@dataclass(frozen=True)
class LoraLayer(Layer):
    """One layer that gets a LoRA, dW = B A.

    Attributes:
        a_shape: (r, in), of a convolution (r, in, k, k).
        b_shape: (out, r), of a convolution (out, r, 1, 1).
    """

    a_shape: tuple[int, ...]
    b_shape: tuple[int, ...]


def lora_layers(unet: nn.Module, config: ModelConfig) -> list[LoraLayer]:
    """Lists the layers that `lora_targets` names, in module order of the UNet."""
    targets, found = config.lora_targets, []
    for name, module in unet.named_modules():
        layer = plain(module)
        if not isinstance(layer, nn.Linear | nn.Conv2d) or any(part in name for part in ADDED):
            continue
        if targets == "all":
            meant = name.startswith(("down_blocks.", "mid_block.", "up_blocks."))
        else:
            meant = any(name.endswith(f".attn2.{target}") for target in targets)
        if meant:
            out_width, in_width, *kernel = layer.weight.shape
            a, b = (config.lora_rank, in_width, *kernel), (out_width, config.lora_rank, *[1] * len(kernel))
            found.append(LoraLayer(name, _level(unet, name), a, b))
    return found


def plain(layer: Any) -> Any:
    """The layer itself, below whatever peft has wrapped around it."""
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer


def _level(unet: Any, name: str) -> int:
    """Resolution level of a layer by its place: down block i and up block n-1-i work at level i."""
    levels = len(unet.config.block_out_channels)
    part, index, *_ = name.split(".")
    if part == "mid_block":
        return levels - 1
    return int(index) if part == "down_blocks" else levels - 1 - int(index)
