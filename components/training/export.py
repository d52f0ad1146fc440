"""The trained weights out of a run: whole, from any ZeRO stage, as one safetensors file."""

from pathlib import Path
from typing import Any, Literal

import torch

from components.training.optimizer_state import whole


def full_weights(engine: Any, adapter: Any) -> dict[str, torch.Tensor]:
    """Returns the whole trained weights in float32 on the CPU; all ranks must call it."""
    return {name: whole(engine, p, "weight").detach().float().cpu() for name, p in adapter.named_parameters()}


def export_adapter(
    adapter: Any,
    weights: dict[str, torch.Tensor],
    path: Path,
    training_run: dict[str, Any],
    dtype: Literal["float32", "float16"] = "float32",
) -> None:
    """Writes whole weights in the adapter's file format.

    Args:
        adapter: The trained adapter, for its shape and settings; its own weights may be scattered over ranks.
        weights: As `full_weights` gives them.
        path: The .safetensors file.
        training_run: What the adapter's JSON says about the run.
        dtype: What the weights are written in.
    """
    from components.model import PhotoVerseAdapter, save_adapter

    twin = PhotoVerseAdapter(
        adapter.config,
        feature_layers=adapter.feature_layers,
        feature_width=adapter.feature_width,
        text_width=adapter.text_width,
        attentions=adapter.attentions,
        lora=adapter.lora_layers,
        fits=adapter.fits,
    )
    twin.load_state_dict(weights)
    save_adapter(twin.to(getattr(torch, dtype)), path, training_run)
