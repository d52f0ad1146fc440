"""Samples are taken out of a set: tars are written anew, the rest keeps its order, a kill costs nothing."""

import os
from itertools import islice
from pathlib import Path

import pytest

from components.core import sha256_file
from components.shards import (
    close_plan,
    encode,
    find_samples,
    is_one_of,
    open_manifest,
    open_plan,
    plan_forgetting,
    put_in_place,
    sets_below,
    verify_shards,
    write_shard,
)
from tests.unit.shards.test_reader import PATHS, STREAM, numbers, order, reader


@pytest.fixture
def saved(make_set):
    """saved(3, 5): a set with its manifest; the person of sample i is "p<i>"."""

    def make(*counts):
        manifest = make_set(*counts)
        manifest.save(Path(manifest.folder) / "manifest.json")
        return manifest

    return make


def forget(manifest, *people):
    folder = Path(manifest.folder)
    plan = plan_forgetting(folder, people)
    found = put_in_place(folder, plan)
    close_plan(folder)
    return found


def test_the_set_is_whole_without_them(saved, make_sample, tmp_path):
    manifest = saved(3, 4, 2)
    after = forget(manifest, "p1", "p4", "p5")
    assert verify_shards(after) == []
    assert open_manifest(tmp_path) == after
    assert [(s.samples, s.gaps) for s in after.shards] == [(2, (1,)), (2, (1, 2)), (2, ())]
    assert after.samples["train"] == after.count_out == 6
    assert find_samples(tmp_path, ["p1", "p4", "p5"]) == []
    plain = write_shard(tmp_path / "new", "a.tar", "train", [encode(make_sample(i)) for i in (0, 2)])
    assert after.shards[0].sha256 == plain.sha256  # the very tar that would have been written without p1
    assert after.shards[0].made_sha256 == manifest.shards[0].sha256
    assert after.shards[2] == manifest.shards[2]
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


@PATHS
def test_the_others_come_as_they_would_have(saved, limit):
    manifest = saved(3, 5, 2)
    flat = [n for batch in order(manifest, 15, **limit) for n in batch]  # six epochs of ten
    after = forget(manifest, "p0", "p4", "p6")
    left = [n for n in flat if n not in (0, 4, 6)]
    found = [n for batch in order(after, 10, **limit) for n in batch]
    assert found == left[:40]
    assert sorted(found[:7]) == [1, 2, 3, 5, 7, 8, 9]


@PATHS
@pytest.mark.parametrize("done", [1, 2, 4])
def test_a_run_that_was_stopped_before_goes_on_without_repeating(saved, limit, done):
    manifest = saved(3, 5, 2)
    before = reader(manifest, **limit)
    seen = [n for batch in islice(before.batches(), done) for n in numbers(batch)]
    flat = [n for batch in order(manifest, 15, **limit) for n in batch]
    after = forget(manifest, "p2", "p7")
    rest = [
        n for b in islice(reader(after, **limit).batches(position=before.position), 5) for n in numbers(b)
    ]
    assert rest == [n for n in flat[len(seen) :] if n not in (2, 7)][:20]


def test_one_after_the_other_is_as_both_at_once(saved, tmp_path):
    manifest = saved(3, 5)
    both = forget(manifest, "p1", "p4")
    for name, shard in zip((s.name for s in manifest.shards), both.shards, strict=True):
        assert sha256_file(tmp_path / name) == shard.sha256
    again = saved(3, 5)
    forget(again, "p4")
    assert forget(again, "p1").shards == both.shards


@PATHS
def test_a_tar_that_holds_nobody_any_more_stays_in_its_place(saved, limit):
    manifest = saved(2, 4, 3)
    flat = [n for batch in order(manifest, 9, **limit) for n in batch]
    after = forget(manifest, "p0", "p1")
    assert after.shards[0].samples == 0
    assert verify_shards(after) == []
    found = [n for batch in order(after, 6, **limit) for n in batch]
    assert found == [n for n in flat if n > 1][:24]


def test_a_split_that_holds_nobody_any_more_is_said(saved):
    after = forget(saved(2), "p0", "p1")
    with pytest.raises(ValueError, match="no samples of split 'train'"):
        reader(after, **STREAM)


@pytest.mark.parametrize("kill_at", range(4))
def test_a_kill_at_any_moment_is_made_good_by_the_next_call(saved, tmp_path, monkeypatch, kill_at):
    manifest = saved(3, 3, 3)
    whole = forget(saved(3, 3, 3), "p1", "p4", "p7").shards
    manifest = saved(3, 3, 3)
    plan = plan_forgetting(tmp_path, ["p1", "p4", "p7"])
    assert verify_shards(manifest) == []  # until the tars are in place, nothing has happened
    real, count = os.replace, [0]

    def killed(source, target):
        if count[0] == kill_at:
            raise KeyboardInterrupt
        count[0] += 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            put_in_place(tmp_path, plan)
    assert put_in_place(tmp_path, open_plan(tmp_path)).shards == whole
    close_plan(tmp_path)
    assert open_plan(tmp_path) is None
    assert verify_shards(open_manifest(tmp_path)) == []


def test_a_tar_that_was_damaged_meanwhile_is_said(saved, tmp_path):
    saved(3)
    plan = plan_forgetting(tmp_path, ["p1"])
    next(tmp_path.glob(".*.forgetting.tmp")).unlink()
    with pytest.raises(ValueError, match="neither the old tar nor the new one"):
        put_in_place(tmp_path, plan)


def test_nobody_of_that_name_changes_nothing(saved, tmp_path):
    saved(3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert plan_forgetting(tmp_path, ["p11", "1", ""]) is None
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_person_is_meant_with_or_without_the_source():
    assert is_one_of("ada", ["ada"])
    assert is_one_of("faces/ada", ["ada"])
    assert is_one_of("faces/ada", ["faces/ada"])
    assert not is_one_of("faces/ada", ["da", "faces", "other/ada"])


def test_sets_are_found_by_their_manifest(saved, tmp_path):
    saved(1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"name": "no set"}')
    assert sets_below([tmp_path, tmp_path / "other"]) == [tmp_path]
