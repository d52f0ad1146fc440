"""A tiny base, an adapter whose LoRA is not zero, drawn people, and everything loaded once."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from components.inference import BatchConfig, Dials, IdentityCard, Personalizer, batch
from components.inference.worker import PictureWorker
from components.model import ModelConfig
from components.portraits.world import portrait
from tests.factories import tiny_base, untrained_adapter
from tests.unit.inference.made_batches import CONFIG, personalized

FEW = Dials(num_inference_steps=3, guidance_scale=3.0)


@pytest.fixture(scope="session")
def model_config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig(base=str(tiny_base(tmp_path_factory.mktemp("base") / "tiny")))


@pytest.fixture(scope="session")
def adapter_file(model_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    return untrained_adapter(path, model_config, lora_std=0.1)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("people")
    for person in range(4):
        Image.fromarray(portrait(person, 0).image_uint8).save(folder / f"{person}.png")
    return sorted(folder.glob("*.png"))


@pytest.fixture(scope="session")
def personalizer(model_config: ModelConfig, adapter_file: Path) -> Personalizer:
    return Personalizer.load(adapter_file, model_config)


@pytest.fixture(scope="session")
def cards(personalizer: Personalizer, photos: list[Path]) -> list[IdentityCard]:
    features = torch.randn(4, *personalizer.extractor.shape, generator=torch.Generator().manual_seed(0))
    return personalizer.attachment.cards(features, consent="a test")


@pytest.fixture
def folder(tmp_path, photos) -> Path:
    for name, photo in zip(("a.png", "b.png"), photos, strict=False):
        (tmp_path / name).write_bytes(photo.read_bytes())
    Image.new("RGB", (96, 96), "grey").save(tmp_path / "nobody.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


@pytest.fixture
def run(folder, adapter_file, model_config, monkeypatch):
    """Runs a batch with the real worker in this process; `run.drawn` lists what each run drew."""
    drawn: list[list[str]] = []

    def in_process(work, config, runtime, adapter, settings):
        import pyarrow as pa

        worker = PictureWorker(str(adapter), settings)
        drawn.append(sorted(row["id"] for text in work for row in json.loads(text)))
        for text in work:
            yield from worker(pa.table({"work": [text]})).to_pylist()

    monkeypatch.setattr(batch, "_ray_rows", in_process)
    monkeypatch.setattr(batch, "ray_session", __import__("contextlib").nullcontext)

    def go(file: Path, config: BatchConfig = CONFIG):
        return personalized(folder, file, adapter_file, model_config, config)

    go.drawn = drawn
    return go
