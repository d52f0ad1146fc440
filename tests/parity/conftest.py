"""A stock pipeline with a tiny base and an adapter whose every branch does something."""

import copy

import pytest
import torch

from components.model import ModelConfig, PhotoVerseAdapter, load_base, load_pipeline
from tests.factories import TINY, tiny_base


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    four = TINY.model_copy(update={"vae": TINY.vae.model_copy(update={"latent_channels": 4})})
    return ModelConfig(
        base=str(tiny_base(tmp_path_factory.mktemp("base") / "tiny", four))
    )  # inpainting wants 4


@pytest.fixture(scope="module")
def trained(config):
    base = load_base(config)
    torch.manual_seed(0)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)
    for name, parameter in adapter.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.1)
    return adapter


@pytest.fixture(scope="module")
def loaded(config):
    return load_pipeline(config)


@pytest.fixture
def pipe(loaded):
    copied = type(loaded)(**copy.deepcopy(loaded.components), requires_safety_checker=False)
    copied.set_progress_bar_config(disable=True)
    return copied


@pytest.fixture
def adapter(trained):
    return copy.deepcopy(trained)
