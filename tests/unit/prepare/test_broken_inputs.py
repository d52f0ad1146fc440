"""Nothing is lost, nothing stops: each of many files ends in a shard, or in the rejects with its reason."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.prepare import PrepareConfig
from tests.unit.prepare import broken

CONFIG = PrepareConfig(validation_share=0.0, heldout_share=0.0, batch_size=32, max_file_mb=1)


def test_every_file_ends_in_a_shard_or_in_the_rejects_with_its_reason(
    prepare_plainly, tmp_path: Path, head, png_header
) -> None:
    source, count = tmp_path / "photos", 200
    expected = broken.fill(source, broken.heads(head), count, png_header(30_000, 30_000))
    assert sum(reason is not None or " " in name for name, reason in expected.items()) >= count // 10
    assert {reason for reason in expected.values() if reason} >= {"duplicate", "too_many_pixels", "no_face"}
    manifest = prepare_plainly(source, CONFIG)
    broken.check_all_accounted_for(manifest, expected)


def test_above_the_share_of_rejects_it_ends_with_an_error(
    prepare_plainly, tmp_path: Path, head, png_header
) -> None:
    broken.fill(tmp_path / "photos", broken.heads(head), 44, png_header(30_000, 30_000))
    message = r"5 of 44 photos were rejected \(.*\); at most 5% may be \(prepare.max_reject_share\)"
    with pytest.raises(ValueError, match=message):
        prepare_plainly(tmp_path / "photos", CONFIG.model_copy(update={"max_reject_share": 0.05}))
    assert pq.read_table(tmp_path / "out" / "rejects.parquet").num_rows == 5
    assert (tmp_path / "out" / "prepare.html").is_file()
