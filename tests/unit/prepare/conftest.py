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


@pytest.fixture
def prepare_plainly(tmp_path: Path, model: ModelConfig) -> Callable[..., ShardManifest]:
    """The whole of `prepare`, with a plain loop where Ray Data stands."""
    from components.prepare.journal import Journal
    from components.prepare.outputs import finish
    from components.prepare.people import with_people
    from components.prepare.pipeline import make_plan, slices, write_shards
    from components.prepare.sources import Library
    from components.prepare.spec import resolve
    from components.prepare.stages import EncodeStage, FaceStage

    def run(
        source: Path | None,
        config: PrepareConfig | None = None,
        out: Path | None = None,
        stop_after: int | None = None,
        face: FaceConfig | None = None,
    ) -> ShardManifest:
        config, out = config or PrepareConfig(), out or tmp_path / "out"
        spec = resolve(config, face or FaceConfig(), model)
        library = Library(config, source)
        records = with_people(library.records(), library, spec, out)
        journal = Journal(out, spec.work)
        journal.keep_valid(records, library)
        plan = make_plan(records, journal, config.samples_per_shard)
        if plan:
            faces, encode = FaceStage(spec, library), EncodeStage(spec, model)
            tables = (encode(faces(table)) for table in slices(plan, config.batch_size))
            rows = (row for table in tables for row in table.to_pylist())
            write_shards(interrupted(rows, stop_after), plan, journal, library, config.near_duplicate_bits)
        return finish(out, journal, spec, 1.0, library)

    def interrupted(rows, stop_after):
        for count, row in enumerate(rows):
            if count == stop_after:
                raise KeyboardInterrupt
            yield row

    return run
