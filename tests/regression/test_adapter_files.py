"""Adapter files and identity cards of every release still load, and still do what they did.

The files of schema version 1 (`adapter_v1.*`, `card_v1.safetensors`) were written once, by `write_v1` below
with adapter and card filled `by_formula`; they are never renewed. A new schema gets files of its own beside
them. `outputs_v1.json` holds what they gave: seedless inputs (formulas), float32, CPU, tolerance 1e-4.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from components.inference import IdentityCard
from components.model import (
    ModelConfig,
    PhotoVerseAdapter,
    PhotoVerseModel,
    adapter_hash,
    load_adapter,
    save_adapter,
)
from tests.regression import frozen_base

HERE = Path(__file__).parent
ADAPTER, CARD, OUTPUTS = (
    HERE / "adapter_v1.safetensors",
    HERE / "card_v1.safetensors",
    HERE / "outputs_v1.json",
)


def wave(*shape: int) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.3).reshape(shape).float()


def outputs(adapter: PhotoVerseAdapter, unet, text_encoder) -> dict[str, list[float]]:
    """What the adapter gives for inputs written as formulas: a few numbers of each kind."""
    positions = torch.full((1, 16), -1)
    positions[0, 3 : 3 + adapter.m] = torch.arange(adapter.m)
    features = wave(1, adapter.m, 2, adapter.feature_width)
    with torch.no_grad():
        prediction = PhotoVerseModel(unet, text_encoder, adapter)(
            wave(1, 4, 8, 8), torch.tensor([400]), torch.arange(16)[None], positions, features, alpha=0.7
        )
    values = {"noise_pred": prediction.noise_pred, "p_f": prediction.p_f, "v_s": prediction.visual_values[0]}
    return {name: value.flatten()[:: _step(value)].tolist() for name, value in values.items()}


def _step(value: torch.Tensor) -> int:
    return max(1, value.numel() // 16)


def write_v1() -> None:
    """How the files came to be, by `from tests.regression.test_adapter_files import write_v1; write_v1()`."""
    unet, text, image = frozen_base.unet(), frozen_base.text_encoder(), frozen_base.image_encoder()
    adapter = PhotoVerseAdapter.create(unet, text, image, ModelConfig(base=frozen_base.NAME, lora_rank=2))
    frozen_base.by_formula(adapter)
    save_adapter(adapter, ADAPTER, {"run_name": "frozen", "step": 1})
    words, tokens = adapter.text_words(wave(1, 2, 2, 16))[0], adapter.visual_tokens(wave(1, 2, 2, 16))[0]
    made = datetime(2026, 1, 1, tzinfo=UTC)
    IdentityCard(
        words, tokens, adapter_hash(adapter), adapter.fits.base_hash, "drawn by a formula", made
    ).save(CARD)
    OUTPUTS.write_text(json.dumps(outputs(adapter, unet, text), indent=1) + "\n")


@pytest.fixture
def loaded() -> PhotoVerseAdapter:
    unet, text, image = frozen_base.unet(), frozen_base.text_encoder(), frozen_base.image_encoder()
    return load_adapter(ADAPTER, unet, text, image, frozen_base.NAME)


def test_an_adapter_of_schema_version_1_loads_and_gives_what_it_gave(loaded):
    found = outputs(loaded, frozen_base.unet(), frozen_base.text_encoder())
    expected = json.loads(OUTPUTS.read_text())
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(values), atol=1e-4, rtol=1e-3)


def test_a_card_of_schema_version_1_loads_and_fits_its_adapter(loaded):
    card = IdentityCard.load(CARD)
    card.check_fit(adapter_hash(loaded), loaded.fits.base_hash)
    with torch.no_grad():
        words = loaded.text_words(wave(1, 2, 2, 16))[0]
    torch.testing.assert_close(card.words, words, atol=1e-4, rtol=1e-3)
    assert card.consent.purpose == "drawn by a formula"
    assert card.created == datetime(2026, 1, 1, tzinfo=UTC)
