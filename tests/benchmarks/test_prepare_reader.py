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
    from components.prepare.engines import PlainEngine
    from components.prepare.journal import Journal
    from components.prepare.pipeline import prepare_with
    from components.prepare.plan import make_plan
    from components.prepare.sources import Catalogue, Library
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
    settings = {"config": config, "face": FaceConfig(), "model": model}
    manifest = prepare_with(PlainEngine(), **settings, source_folder=source, folder=folder / "out")
    spec, library = resolve(**settings), Library(config, source)
    faces, encode = FaceStage(spec, library), EncodeStage(spec, model)
    with Catalogue() as catalogue:
        library.list_into(catalogue)
        plan = make_plan(Journal(folder / "none", spec.work, catalogue), library, config.samples_per_shard)
        slices_of_rows = [faces(table).to_pylist() for table in plan.slices(config.batch_size)]

    def raw() -> None:
        for rows in slices_of_rows:
            for row in rows:
                decode_photo((source / row["file"]).read_bytes(), config.max_pixels)
            encode.samples(rows)

    return manifest, raw


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
