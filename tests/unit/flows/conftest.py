"""A person to draw and an untrained adapter to draw with, on this repository's base."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from components.inference import Personalizer
from components.model import PhotoVerseAdapter, load_base, save_adapter
from components.portraits.world import portrait
from flows.config import resolve
from tests.unit.flows.drawing import BASE


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """An adapter of the repository's base that nobody has trained, whose every branch does something."""
    base = load_base(BASE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, BASE)
        for name, parameter in made.named_parameters():
            if name.endswith(".b"):
                torch.nn.init.normal_(parameter, std=0.02)
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    save_adapter(
        made, path, {"run_name": "a-test", "face": resolve("portraits").face.model_dump(mode="json")}
    )
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "me.png"
    Image.fromarray(portrait(3, 0).image_uint8).save(path)
    return path


@pytest.fixture(scope="module")
def card(adapter, photo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("card") / "me.safetensors"
    return Personalizer.load(adapter).card(photo, consent="drawn").save(path)
