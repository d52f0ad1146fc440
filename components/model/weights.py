"""Adapter files: a safetensors with the trained weights, and a JSON that says what they fit and came from."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from components.core import StrictConfig, sha256_file, write_bytes_atomic, write_text_atomic
from components.model.config import ModelConfig
from components.model.fits import Fits
from components.model.layers import cross_attentions, lora_layers
from components.model.photoverse import PhotoVerseAdapter


class AdapterCard(StrictConfig):
    """The JSON beside an adapter's weights.

    Attributes:
        switches: The model's settings.
        fits: Base and image encoder that the adapter belongs to.
        feature_layers: Resolved layer indices.
        training_run: Whatever the training run says about itself (run name, step, MLflow run id, and under
            "face" how faces were found and masked).
        sha256: Of the safetensors file: the adapter's hash everywhere else (cards, picture metadata,
            registry).
    """

    format: Literal["photoverse-adapter"] = "photoverse-adapter"
    schema_version: Literal[1] = 1
    switches: ModelConfig
    fits: Fits
    feature_layers: tuple[int, ...]
    training_run: dict[str, Any] = {}
    sha256: str


def card_path(path: Path) -> Path:
    """Returns the place of the JSON that belongs to a safetensors file."""
    return path.with_suffix(".json")


def save_adapter(adapter: PhotoVerseAdapter, path: Path, training_run: dict[str, Any] | None = None) -> str:
    """Writes `path` (.safetensors) and the JSON beside it; returns the weights file's SHA-256.

    Raises:
        ValueError: The path does not end in .safetensors.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"adapter weights go to a .safetensors file, found {path.name!r}")
    write_bytes_atomic(path, _serialised(adapter))
    sha256 = sha256_file(path)
    card = AdapterCard(
        switches=adapter.config,
        fits=adapter.fits,
        feature_layers=adapter.feature_layers,
        training_run=training_run or {},
        sha256=sha256,
    )
    write_text_atomic(card_path(path), json.dumps(card.model_dump(mode="json"), indent=2) + "\n")
    return sha256


def adapter_hash(adapter: PhotoVerseAdapter) -> str:
    """Returns the adapter's hash: SHA-256 of its weights file, or of what `save_adapter` would write."""
    return adapter.loaded_sha256 or hashlib.sha256(_serialised(adapter)).hexdigest()


def _serialised(adapter: PhotoVerseAdapter) -> bytes:
    from safetensors.torch import save

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.state_dict().items()}
    # One key: the order of several in the file is random, and with it the file's hash.
    return save(weights, metadata={"format": "photoverse-adapter-1"})


def read_adapter_card(path: Path) -> AdapterCard:
    """Reads the JSON beside the weights file `path`, and checks that the two belong together.

    Raises:
        ValueError: A file is missing, of a newer schema, or not the pair that was written.
    """
    for file in (path, card_path(path)):
        if not file.is_file():
            raise ValueError(
                f"no adapter at {path}: {file} is missing (an adapter is a .safetensors and a .json)"
            )
    values = json.loads(card_path(path).read_text(encoding="utf-8"))
    if not isinstance(values, dict) or values.get("schema_version") != 1:
        found = values.get("schema_version") if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{card_path(path)} has schema version {found!r}; this version reads 1")
    card = AdapterCard.parse(values, source=str(card_path(path)))
    if sha256_file(path) != card.sha256:
        raise ValueError(
            f"{path} is not the file that {card_path(path).name} describes: their SHA-256 differ"
        )
    return card


def load_adapter(
    path: Path,
    unet: Any,
    text_encoder: Any,
    image_encoder: Any | None = None,
    base_name: str = "the loaded base",
) -> PhotoVerseAdapter:
    """Loads an adapter for a base model; on the UNet's device, in float32 whatever it was saved in.

    Args:
        path: The .safetensors file.
        unet: The UNet that it will be installed on.
        text_encoder: Of the same base.
        image_encoder: The encoder that will make its features; None if only finished identity cards will be
            used.
        base_name: What to call that base in an error.

    Raises:
        ValueError: The files are damaged, or belong to another base (both are named) or image encoder.
    """
    from safetensors.torch import load_file

    card = read_adapter_card(path)
    card.fits.check_base(base_name, unet, text_encoder)
    if image_encoder is not None:
        card.fits.check_image_encoder(f"the one of {base_name}", image_encoder)
    weights = load_file(path)
    adapter = PhotoVerseAdapter(
        card.switches,
        feature_layers=card.feature_layers,
        feature_width=weights["text_adapters.0.cls.0.weight"].shape[1],
        text_width=text_encoder.config.hidden_size,
        attentions=cross_attentions(unet),
        lora=lora_layers(unet, card.switches),
        fits=card.fits,
    )
    adapter.load_state_dict(weights)
    adapter.loaded_sha256 = card.sha256
    return adapter.to(unet.device)
