import copy
import json

import pytest
import torch

from components.core import sha256_file
from components.model import (
    ModelConfig,
    PhotoVerseAdapter,
    install,
    load_adapter,
    read_adapter_card,
    save_adapter,
    weight_hashes,
)
from tests.unit.model.test_install import person, run


@pytest.fixture
def saved(adapter, tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_adapter(adapter, path, {"run_name": "a-test", "step": 7})
    return path


def test_weights_and_switches_survive_save_and_load(base, adapter, saved):
    again = load_adapter(saved, base.unet, base.text_encoder, base.image_encoder)
    ours, theirs = adapter.state_dict(), again.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.config == adapter.config
    assert again.feature_layers == adapter.feature_layers
    other = copy.deepcopy(base.unet)
    install(base.unet, adapter)
    install(other, again)
    assert torch.equal(run(base.unet, **person(base.unet)), run(other, **person(other)))


def test_a_file_in_float16_is_half_as_large_and_loads_in_float32(base, adapter, saved, tmp_path):
    half = tmp_path / "half.safetensors"
    save_adapter(copy.deepcopy(adapter).half(), half)
    again = load_adapter(half, base.unet, base.text_encoder)
    for name, weight in again.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, adapter.state_dict()[name], atol=1e-3, rtol=1e-3)
    assert half.stat().st_size < 0.6 * saved.stat().st_size


def test_the_json_says_what_it_is_and_where_from(adapter, saved):
    card = read_adapter_card(saved)
    assert card.training_run == {"run_name": "a-test", "step": 7}
    assert card.sha256 == sha256_file(saved)
    assert json.loads(saved.with_suffix(".json").read_text())["schema_version"] == 1


def test_saving_twice_gives_the_same_bytes(adapter, saved, tmp_path):
    assert save_adapter(adapter, tmp_path / "again.safetensors") == sha256_file(saved)


def test_the_wrong_base_is_an_error_that_names_both(base, adapter, saved):
    torch.nn.init.normal_(base.unet.conv_in.weight)
    found = weight_hashes(base.unet, base.text_encoder)["float32"]
    message = f"{adapter.fits.base_name} \\({adapter.fits.base_hash}\\).*put on other/base \\({found}\\)"
    with pytest.raises(ValueError, match=message):
        load_adapter(saved, base.unet, base.text_encoder, base_name="other/base")


def test_the_wrong_image_encoder_is_an_error(base, saved):
    torch.nn.init.normal_(base.image_encoder.vision_model.embeddings.class_embedding)
    with pytest.raises(ValueError, match="image encoder"):
        load_adapter(saved, base.unet, base.text_encoder, base.image_encoder)
    load_adapter(saved, base.unet, base.text_encoder)  # finished identity cards need no encoder


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_same_base_in_a_coarser_dtype_is_the_same_base(base, saved, dtype):
    load_adapter(saved, base.unet.to(dtype), base.text_encoder.to(dtype), base.image_encoder.to(dtype))


def test_an_installed_adapter_does_not_change_the_identity_of_its_base(base, adapter):
    before = weight_hashes(base.unet)
    install(base.unet, adapter)
    assert weight_hashes(base.unet) == before


def test_half_a_pair_a_wrong_pair_or_a_newer_schema_is_refused(base, adapter, saved, tmp_path):
    def load():
        load_adapter(saved, base.unet, base.text_encoder)

    card = saved.with_suffix(".json")
    text = card.read_text()
    card.unlink()
    with pytest.raises(ValueError, match="is missing"):
        load()
    card.write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(ValueError, match="schema version 2; this version reads 1"):
        load()
    card.write_text(text)
    torch.nn.init.zeros_(adapter.text_adapters[0].cls[0].weight)
    save_adapter(adapter, tmp_path / "other.safetensors")
    saved.write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(ValueError, match="SHA-256 differ"):
        load()


def test_only_safetensors_are_written(adapter, tmp_path):
    with pytest.raises(ValueError, match="safetensors"):
        save_adapter(adapter, tmp_path / "adapter.pt")


def test_switches_travel_with_the_weights(base, tmp_path):
    config = ModelConfig(
        base=base.name, visual_tokens="mean", text_pooling="cls", lora_rank=2, feature_layers=(1, 3)
    )
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)
    save_adapter(adapter, tmp_path / "a.safetensors")
    assert load_adapter(tmp_path / "a.safetensors", base.unet, base.text_encoder).config == config
