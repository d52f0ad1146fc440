"""A tiny base with the real architecture, loaded once; each test gets copies that it may change."""

import copy

import pytest
import torch

from components.model import Base, ModelConfig, PhotoVerseAdapter, load_base
from tests.factories import tiny_base


@pytest.fixture(scope="session")
def model_config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig(base=str(tiny_base(tmp_path_factory.mktemp("base") / "tiny")))


@pytest.fixture(scope="session")
def loaded_base(model_config: ModelConfig) -> Base:
    return load_base(model_config)


@pytest.fixture
def base(loaded_base: Base) -> Base:
    return copy.deepcopy(loaded_base)


@pytest.fixture
def adapter(base: Base, model_config: ModelConfig) -> PhotoVerseAdapter:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, model_config)
        for name, parameter in adapter.named_parameters():
            if name.endswith(".b"):  # a LoRA that starts at zero would hide itself from every test
                torch.nn.init.normal_(parameter, std=0.1)
    return adapter
