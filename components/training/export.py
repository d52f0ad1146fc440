"""The trained weights out of a run: whole, in float32, from any ZeRO stage, as one safetensors file."""

from pathlib import Path
from typing import Any

import torch


def full_weights(adapter: Any) -> dict[str, torch.Tensor]:
    """Returns the whole trained weights in float32 on the CPU; all ranks must call it."""
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in adapter.named_parameters():
        whole = safe_get_full_fp32_param(parameter)  # None where DeepSpeed does not wrap the parameter
        weights[name] = (parameter if whole is None else whole).detach().float().cpu()
    return weights


def export_adapter(
    adapter: Any, weights: dict[str, torch.Tensor], path: Path, training_run: dict[str, Any]
) -> None:
    """Writes whole weights in the adapter's file format.

    Args:
        adapter: The trained adapter, for its shape and settings; its own weights may be scattered over ranks.
        weights: As `full_weights` gives them.
        path: The .safetensors file.
        training_run: What the adapter's JSON says about the run.
    """
    from components.model import PhotoVerseAdapter, save_adapter

    whole = PhotoVerseAdapter(
        adapter.config,
        feature_layers=adapter.feature_layers,
        feature_width=adapter.feature_width,
        text_width=adapter.text_width,
        attentions=adapter.attentions,
        fits=adapter.fits,
    )
    whole.load_state_dict(weights)
    save_adapter(whole, path, training_run)
