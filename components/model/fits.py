"""Which base model an adapter belongs to: quick identities of frozen weights, alike in any dtype."""

import hashlib
from typing import Any

import torch
from torch import nn

from components.core import StrictConfig

# From fine to coarse: an identity in a coarser type follows from weights in a finer one.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SAMPLES = 64  # values read of each tensor, evenly spread; a fine-tuned model differs in nearly all of them


class Fits(StrictConfig):
    """Identity of the frozen parts that an adapter was made for.

    Attributes:
        base_name: Folder or hub id, for messages.
        base: Hash of the UNet and text encoder, by the dtype that the weights were rounded to before hashing.
        image_encoder: The same of the image encoder.
    """

    base_name: str
    base: dict[str, str]
    image_encoder: dict[str, str]

    @classmethod
    def of(cls, base_name: str, unet: nn.Module, text_encoder: nn.Module, image_encoder: nn.Module) -> "Fits":
        """Computes the identity of loaded models."""
        return cls(
            base_name=base_name,
            base=weight_hashes(unet, text_encoder),
            image_encoder=weight_hashes(image_encoder),
        )

    @property
    def base_hash(self) -> str:
        """The base's hash in its finest dtype."""
        return next(iter(self.base.values()))

    @property
    def image_encoder_hash(self) -> str:
        """The image encoder's hash in its finest dtype."""
        return next(iter(self.image_encoder.values()))

    def check_base(self, name: str, unet: nn.Module, text_encoder: nn.Module) -> None:
        """Raises a ValueError that names both bases if these models are not the adapter's."""
        found = weight_hashes(unet, text_encoder)
        if not same_weights(self.base, found):
            raise ValueError(
                f"this adapter belongs to the base {self.base_name} ({self.base_hash}), "
                f"but it is being put on {name} ({next(iter(found.values()))})"
            )

    def check_image_encoder(self, name: str, image_encoder: nn.Module) -> None:
        """Raises a ValueError if this is not the image encoder that belongs to the adapter."""
        found = weight_hashes(image_encoder)
        if not same_weights(self.image_encoder, found):
            raise ValueError(
                f"this adapter reads features of the image encoder {self.image_encoder_hash}, "
                f"but {name} is {next(iter(found.values()))}"
            )


def same_weights(one: dict[str, str], other: dict[str, str]) -> bool:
    """Compares two identities in every dtype that both have."""
    common = one.keys() & other.keys()
    return bool(common) and any(one[name] == other[name] for name in common)


@torch.no_grad()
def weight_hashes(*modules: nn.Module) -> dict[str, str]:
    """Returns 16 hex digits for each dtype that the weights can be rounded to exactly, finest first.

    LoRA layers and attention processors that were added to a module do not count. On the meta device, where
    there are no weights, only names and shapes count.
    """
    samples = [sample for module in modules for sample in _samples(module)]
    finest = samples[0][1].dtype if samples else torch.float32
    kept = [name for name, dtype in DTYPES.items() if finest in (torch.float32, dtype)]
    return {name: _digest(samples, DTYPES[name]) for name in kept}


def _samples(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    found: list[tuple[str, Any]] = []
    for name, weight in module.named_parameters():
        if ".lora_" in name or ".processor." in name:
            continue
        flat = weight.detach().flatten()
        if not weight.is_meta:
            at = torch.linspace(0, flat.numel() - 1, min(SAMPLES, flat.numel()), dtype=torch.float64).long()
            flat = flat[at.to(flat.device)].cpu()
        found.append((f"{name.replace('base_layer.', '')}{tuple(weight.shape)}", flat))
    return sorted(found, key=lambda item: item[0])


def _digest(samples: list[tuple[str, torch.Tensor]], dtype: torch.dtype) -> str:
    digest = hashlib.sha256()
    for name, values in samples:
        digest.update(name.encode())
        if not values.is_meta:
            digest.update(values.to(dtype).float().numpy().tobytes())
    return digest.hexdigest()[:16]
