"""A second run over the same, new, changed, missing or damaged photos does what is new and no more."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.core import sha256_file
from components.prepare import PrepareConfig
from components.shards import load_split, verify_shards

ALL_TRAIN = {"validation_share": 0.0, "heldout_share": 0.0}


def tars(out: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(out.glob("*.tar"))}


def rejects(out: Path) -> dict[str, str]:
    return {row["file"]: row["reason"] for row in pq.read_table(out / "rejects.parquet").to_pylist()}


def test_a_second_run_does_nothing(prepare_plainly, add_photos, tmp_path: Path, monkeypatch) -> None:
    source, config = add_photos(3), PrepareConfig(**ALL_TRAIN)
    first = prepare_plainly(source, config)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    def never(*args, **kwargs):
        raise AssertionError("work was done again")

    monkeypatch.setattr("components.prepare.stages.FaceStage.__init__", never)
    assert prepare_plainly(source, config) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == times


def test_a_touched_photo_is_not_done_again(prepare_plainly, add_photos, monkeypatch) -> None:
    source, config = add_photos(2), PrepareConfig(**ALL_TRAIN)
    first = prepare_plainly(source, config)
    (source / "0000.png").touch()
    monkeypatch.setattr("components.prepare.stages.FaceStage.__init__", None)
    assert prepare_plainly(source, config) == first


@pytest.mark.parametrize("stop_after", [0, 1, 4, 5, 9])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    prepare_plainly, add_photos, tmp_path: Path, stop_after: int
) -> None:
    source = add_photos(10)
    (source / "0003.png").write_bytes(b"no image")
    config = PrepareConfig(samples_per_shard=4, batch_size=3, **ALL_TRAIN)
    whole = prepare_plainly(source, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        prepare_plainly(source, config, tmp_path / "killed", stop_after=stop_after)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.tar")}
    again = prepare_plainly(source, config, tmp_path / "killed")
    assert tars(tmp_path / "killed") == tars(tmp_path / "whole")
    assert len(tars(tmp_path / "whole")) == 3
    assert again.fingerprint == whole.fingerprint
    assert rejects(tmp_path / "killed") == {"0003.png": "not_an_image"}
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.tar")}
    assert kept.items() <= now.items()  # a finished shard is never written again


def test_new_photos_cost_only_themselves(prepare_plainly, add_photos, tmp_path: Path) -> None:
    config = PrepareConfig(samples_per_shard=4, **ALL_TRAIN)
    prepare_plainly(add_photos(6), config)
    before = tars(tmp_path / "out")
    manifest = prepare_plainly(add_photos(3, first=6), config)
    after = tars(tmp_path / "out")
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert (manifest.count_in, manifest.count_out) == (9, 9)
    assert verify_shards(manifest) == []


def test_a_changed_photo_and_a_removed_one(
    prepare_plainly, add_photos, tmp_path: Path, head, as_bytes
) -> None:
    source, config = add_photos(9), PrepareConfig(samples_per_shard=3, **ALL_TRAIN)
    prepare_plainly(source, config)
    before = tars(tmp_path / "out")
    (source / "0004.png").write_bytes(as_bytes(head[:, ::-1]))
    (source / "0008.png").unlink()
    manifest = prepare_plainly(source, config)
    after = tars(tmp_path / "out")
    assert after["train-000000.tar"] == before["train-000000.tar"]
    assert (manifest.count_in, manifest.count_out) == (8, 8)
    assert verify_shards(manifest) == []
    files = {s["meta.json"]["file"] for s in load_split(manifest, "train")}
    assert files == {path.name for path in source.iterdir()}


def test_a_double_takes_the_place_of_a_photo_that_is_gone(
    prepare_plainly, add_photos, tmp_path: Path
) -> None:
    source, config = add_photos(3), PrepareConfig(samples_per_shard=1, **ALL_TRAIN)
    (source / "copy.png").write_bytes((source / "0001.png").read_bytes())
    assert prepare_plainly(source, config).rejects_by_reason == {"duplicate": 1}
    (source / "0001.png").unlink()
    manifest = prepare_plainly(source, config)
    assert (manifest.count_in, manifest.count_out, manifest.rejects) == (3, 3, 0)
    assert verify_shards(manifest) == []


def test_a_damaged_shard_is_made_again(prepare_plainly, add_photos, tmp_path: Path) -> None:
    source, config = add_photos(6), PrepareConfig(samples_per_shard=3, **ALL_TRAIN)
    prepare_plainly(source, config)
    before = tars(tmp_path / "out")
    path = tmp_path / "out" / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    prepare_plainly(source, config)
    assert tars(tmp_path / "out") == before


def test_other_settings_make_other_samples(prepare_plainly, add_photos, tmp_path: Path) -> None:
    source = add_photos(2)
    first = prepare_plainly(source, PrepareConfig(**ALL_TRAIN))
    second = prepare_plainly(source, PrepareConfig(identity_expand=1.5, **ALL_TRAIN))
    assert first.shards[0].sha256 != second.shards[0].sha256
    assert len(list((tmp_path / "out").glob("*.tar"))) == 1
    faster = prepare_plainly(source, PrepareConfig(identity_expand=1.5, face_workers=2, **ALL_TRAIN))
    assert faster == second


def test_other_labels_are_not_lost(prepare_plainly, add_photos) -> None:
    source, config = add_photos(1), PrepareConfig()
    for person in ("ann", "eve"):
        (source / "metadata.csv").write_text(f"file,identity,split\n0000.png,{person},train\n")
        (sample,) = load_split(prepare_plainly(source, config), "train")
        assert sample["meta.json"]["person"] == person
