"""A person to draw and an untrained adapter to draw with, on this repository's base."""

from pathlib import Path

import pytest
from PIL import Image

from components.inference import Personalizer
from components.portraits.world import portrait
from flows.config import resolve
from tests.factories import untrained_adapter
from tests.unit.flows.drawing import BASE


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """An adapter of the repository's base that nobody has trained, whose every branch does something."""
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    face = resolve("portraits").face.model_dump(mode="json")
    return untrained_adapter(path, BASE, lora_std=0.02, face=face)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "me.png"
    Image.fromarray(portrait(3, 0).image_uint8).save(path)
    return path


@pytest.fixture(scope="module")
def card(adapter, photo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("card") / "me.safetensors"
    return Personalizer.load(adapter).card(photo, consent="drawn").save(path)
