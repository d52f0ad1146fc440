"""Nothing is lost, nothing stops: each of many files ends in a shard, or in the rejects with its reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.prepare import PrepareConfig
from components.shards import load_split, verify_shards
from tests.unit.prepare import broken

CONFIG = PrepareConfig(validation_share=0.0, heldout_share=0.0, batch_size=32, max_file_mb=1)


def heads(head: np.ndarray) -> Callable[[int], np.ndarray]:
    """Photos of one head that differ in a few pixels of their corner, also after JPEG and in few colours."""

    head = np.asarray(Image.fromarray(head).resize((128, 128)))

    def make(i: int) -> np.ndarray:
        picture = np.roll(head, i % 5, axis=1).copy()
        for bit in range(12):
            picture[:8, 8 * bit : 8 * bit + 8] = 255 * (i >> bit & 1)
        return picture

    return make


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_file_ends_in_a_shard_or_in_the_rejects_with_its_reason(
    prepare_plainly, tmp_path: Path, head, png_header, count: int
) -> None:
    source = tmp_path / "photos"
    expected = broken.fill(source, heads(head), count, png_header(30_000, 30_000))
    assert sum(reason is not None or " " in name for name, reason in expected.items()) >= count // 10
    assert {reason for reason in expected.values() if reason} >= {"duplicate", "too_many_pixels", "no_face"}
    manifest = prepare_plainly(source, CONFIG)
    rejects = {row["file"]: row["reason"] for row in pq.read_table(manifest.rejects_file).to_pylist()}
    samples = {sample["meta.json"]["file"] for sample in load_split(manifest, "train", ())}
    assert rejects == {name: reason for name, reason in expected.items() if reason}
    assert samples == {name for name, reason in expected.items() if reason is None}
    assert (manifest.count_in, manifest.count_out) == (count, count - len(rejects))
    assert sum(manifest.rejects_by_reason.values()) == manifest.rejects
    assert verify_shards(manifest) == []


def test_above_the_share_of_rejects_it_ends_with_an_error(
    prepare_plainly, tmp_path: Path, head, png_header
) -> None:
    broken.fill(tmp_path / "photos", heads(head), 44, png_header(30_000, 30_000))
    message = r"5 of 44 photos were rejected \(.*\); at most 5% may be \(prepare.max_reject_share\)"
    with pytest.raises(ValueError, match=message):
        prepare_plainly(tmp_path / "photos", CONFIG.model_copy(update={"max_reject_share": 0.05}))
    assert pq.read_table(tmp_path / "out" / "rejects.parquet").num_rows == 5
    assert (tmp_path / "out" / "prepare.html").is_file()
