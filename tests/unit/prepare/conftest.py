"""A head from a real photograph, a tiny base, and the stages run in a plain loop, without Ray."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from components.core import ShardManifest
from components.face import FaceConfig
from components.model import ModelConfig
from components.prepare import PrepareConfig
from components.prepare.engines import PlainEngine
from components.prepare.pipeline import prepare_with
from tests.factories import tiny_base


@pytest.fixture(scope="session")
def head() -> np.ndarray:
    """160 px RGB around the one face of scikit-image's astronaut."""
    crop = Image.fromarray(skimage.data.astronaut()[20:276, 90:346])
    return np.asarray(crop.resize((160, 160), Image.Resampling.BICUBIC))


@pytest.fixture
def add_photos(tmp_path: Path, head: np.ndarray, as_bytes) -> Callable[..., Path]:
    """Returns a function that puts `count` different photos of the head into the folder `photos`."""

    def add(count: int, first: int = 0) -> Path:
        source = tmp_path / "photos"
        source.mkdir(exist_ok=True)
        for i in range(first, first + count):
            shifted = np.roll(head, i % 5, axis=1).copy()
            shifted[0, 0] = (i % 256, i // 256, 0)  # no two photos have the same bytes
            (source / f"{i:04d}.png").write_bytes(as_bytes(shifted))
        return source

    return add


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig(base=str(tiny_base(tmp_path_factory.mktemp("tiny") / "base")))


class Interrupted(PlainEngine):
    """Stops after some rows, as Ctrl-C would; None never stops."""

    def __init__(self, stop_after: int | None) -> None:
        self.stop_after = stop_after

    def rows(self, *args, **kwargs):
        for count, row in enumerate(super().rows(*args, **kwargs)):
            if count == self.stop_after:
                raise KeyboardInterrupt
            yield row


@pytest.fixture
def prepare_plainly(tmp_path: Path, model: ModelConfig) -> Callable[..., ShardManifest]:
    """The whole of `prepare`, with a plain loop where Ray Data stands."""

    def run(
        source: Path | None,
        config: PrepareConfig | None = None,
        out: Path | None = None,
        stop_after: int | None = None,
        face: FaceConfig | None = None,
    ) -> ShardManifest:
        return prepare_with(
            Interrupted(stop_after), config=config or PrepareConfig(), face=face or FaceConfig(), model=model,
            source_folder=source, folder=out or tmp_path / "out",
        )  # fmt: skip

    return run
