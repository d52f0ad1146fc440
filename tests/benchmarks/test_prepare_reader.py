"""What prepared samples save in the training loop, at the sizes of the portrait base."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import skimage
from PIL import Image

from components.core import ShardManifest
from components.face import FaceConfig, decode_photo
from components.model import ModelConfig
from components.prepare import PrepareConfig
from components.shards import ReaderConfig, ShardReader

PHOTOS = 64


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardManifest, Callable[[], None]]:
    """A shard set of one head under small shifts, and the work that it saves: open, decode, CLIP, VAE."""
    from components.portraits.architecture import create_base
    from components.portraits.config import BaseArchitecture
    from components.prepare.journal import Journal
    from components.prepare.outputs import finish
    from components.prepare.pipeline import make_plan, slices, write_shards
    from components.prepare.sources import Library
    from components.prepare.spec import resolve
    from components.prepare.stages import EncodeStage, FaceStage

    folder = tmp_path_factory.mktemp("bench")
    create_base(folder / "base", BaseArchitecture())
    source = folder / "photos"
    source.mkdir()
    head = Image.fromarray(skimage.data.astronaut()[20:276, 90:346]).resize((128, 128))
    for i in range(PHOTOS):
        picture = np.asarray(head).copy()
        picture[0, 0] = i
        Image.fromarray(picture).save(source / f"{i:03d}.png")
    config, model = PrepareConfig(batch_size=32), ModelConfig(base=str(folder / "base"))
    spec = resolve(config, FaceConfig(), model)
    journal = Journal(folder / "out", spec.work)
    library = Library(config, source)
    plan = make_plan(library.records(), journal, config.samples_per_shard)
    faces, encode = FaceStage(spec, library), EncodeStage(spec, model)
    tables = [faces(table) for table in slices(plan, config.batch_size)]
    write_shards((row for t in tables for row in encode(t).to_pylist()), plan, journal, library)
    slices_of_rows = [table.to_pylist() for table in tables]

    def raw() -> None:
        for rows in slices_of_rows:
            for row in rows:
                decode_photo((source / row["file"]).read_bytes(), config.max_pixels)
            encode.samples(rows)

    return finish(folder / "out", journal, spec, 0.0, library), raw


# Streaming is bound by Python's tarfile, about 0.15 ms a file. With a real base, whose raw work is a hundred
# times as long, that hardly counts; this smallest base shows it.
@pytest.mark.parametrize(
    ("name", "limit", "at_least"), [("reader_over_raw", 256, 20), ("reader_stream_over_raw", 0, 4)]
)
def test_reading_shards_against_encoding_photos(
    ratio, prepared, name: str, limit: int, at_least: int
) -> None:
    manifest, raw = prepared
    reader = ShardReader(manifest, "train", batch_size=32, seed=0, config=ReaderConfig(memory_limit_mb=limit))
    batches = reader.batches()

    def read() -> None:
        list(islice(batches, PHOTOS // 32))

    # Seconds of the raw work over seconds of the reader: how many times faster the reader is.
    assert ratio(name, raw, read, runs=7, against="the reader, one epoch") >= at_least
