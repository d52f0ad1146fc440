import uuid
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from components.core import ShardManifest
from components.shards import (
    OTHER,
    DamagedShard,
    ReaderConfig,
    Sample,
    ShardReader,
    decode,
    encode,
    load_split,
    write_shard,
)

STREAM = {"config": ReaderConfig(memory_limit_mb=0)}
PATHS = pytest.mark.parametrize("limit", [{}, STREAM], ids=["memory", "stream"])
MakeSet = Callable[..., ShardManifest]


def numbers(batch: dict[str, Any]) -> list[int]:
    return [meta["number"] for meta in batch["meta.json"]]


def reader(manifest: ShardManifest, **settings: Any) -> ShardReader:
    return ShardReader(manifest, "train", **{"batch_size": 4, "seed": 1} | settings)


def order(manifest: ShardManifest, batches: int, start: int = 0, **settings: Any) -> list[list[int]]:
    return [numbers(b) for b in islice(reader(manifest, **settings).batches(start), batches)]


@PATHS
def test_a_batch_holds_every_field_as_written(
    make_set: MakeSet, make_sample: Callable[..., Sample], limit
) -> None:
    batch = next(reader(make_set(3, 4), **limit).batches())
    for row, number in enumerate(numbers(batch)):
        expected = make_sample(number)
        assert batch["__key__"][row] == expected["__key__"]
        assert batch["meta.json"][row] == expected["meta.json"]
        for name, value in expected.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(batch[name][row], value)
    assert batch["features.npy"].shape == (4, 3, 2, 5)


@PATHS
def test_each_epoch_holds_each_sample_once(make_set: MakeSet, limit) -> None:
    manifest = make_set(3, 5, 2)  # 10 samples, batches of 4: epochs end inside batches
    flat = [n for batch in order(manifest, 15, **limit) for n in batch]
    epochs = [flat[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


@PATHS
@pytest.mark.parametrize("start", [1, 2, 3, 7, 12])
def test_a_resumed_reader_goes_on_exactly(make_set: MakeSet, limit, start: int) -> None:
    manifest = make_set(3, 5, 2)
    assert order(manifest, 6, start, **limit) == order(manifest, 6 + start, **limit)[start:]


@PATHS
def test_the_seed_decides_the_order(make_set: MakeSet, limit) -> None:
    manifest = make_set(6, 6)
    assert order(manifest, 3, **limit) == order(manifest, 3, **limit)
    assert order(manifest, 3, **limit) != order(manifest, 3, seed=2, **limit)


@PATHS
def test_ranks_share_the_global_batch(make_set: MakeSet, limit) -> None:
    manifest = make_set(5, 4)
    whole = order(manifest, 7, **limit)
    for world_size in (2, 4):
        parts = [order(manifest, 7, rank=rank, world_size=world_size, **limit) for rank in range(world_size)]
        assert [sum(step, []) for step in zip(*parts, strict=True)] == whole


def test_streaming_really_mixes_shards(make_set: MakeSet) -> None:
    epoch = order(make_set(8, 8), 1, batch_size=16, **STREAM)[0]
    assert epoch != sorted(epoch)
    assert {n < 8 for n in epoch[:8]} == {True, False}


def test_size_alone_chooses_the_path(make_set: MakeSet) -> None:
    manifest = make_set(2)
    size = sum(path.stat().st_size for path in Path(manifest.folder).glob("*.tar"))
    assert reader(manifest, config=ReaderConfig(memory_limit_mb=size / 2**20)).in_memory
    assert not reader(manifest, config=ReaderConfig(memory_limit_mb=(size - 1) / 2**20)).in_memory


@PATHS
def test_a_batch_larger_than_the_set(make_set: MakeSet, limit) -> None:
    (batch,) = order(make_set(2, 1), 1, batch_size=8, **limit)
    assert sorted(Counter(batch).values()) == [2, 3, 3]


@PATHS
def test_only_wanted_fields_are_read(make_set: MakeSet, limit) -> None:
    batch = next(reader(make_set(4), fields=("mask.png",), **limit).batches())
    assert set(batch) == {"__key__", "mask.png", "meta.json"}


def test_load_split_gives_all_in_order(make_set: MakeSet) -> None:
    assert [s["meta.json"]["number"] for s in load_split(make_set(2, 3), "train")] == [0, 1, 2, 3, 4]


def test_what_does_not_fit_is_said(make_set: MakeSet) -> None:
    manifest = make_set(2)
    with pytest.raises(ValueError, match="no samples of split 'heldout'; it has {'train': 2}"):
        ShardReader(manifest, "heldout", batch_size=1, seed=0)
    for wrong in ({"batch_size": 3, "world_size": 2}, {"batch_size": 0}, {"rank": 2, "world_size": 2}):
        with pytest.raises(ValueError, match="batch_size"):
            reader(manifest, **wrong)


def test_a_missing_shard_is_said_at_once(make_set: MakeSet) -> None:
    manifest = make_set(2, 2)
    (Path(manifest.folder) / "train-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"1 shards are missing .*train-000001\.tar"):
        reader(manifest)


@PATHS
def test_a_cut_shard_is_an_error_not_a_short_epoch(make_set: MakeSet, limit) -> None:
    manifest = make_set(3, 3)
    path = Path(manifest.folder) / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"train-000001\.tar is damaged|shards hold . samples"):
        order(manifest, 3, **limit)


@PATHS
def test_a_shard_with_fewer_samples_than_promised_is_an_error(
    make_set: MakeSet, make_sample: Callable[..., Sample], limit
) -> None:
    manifest = make_set(3)
    write_shard(Path(manifest.folder), "train-000000.tar", "train", [encode(make_sample(0))])
    with pytest.raises(ValueError, match=r"train-000000\.tar is damaged: found 1 samples, .* says 3"):
        order(manifest, 2, **limit)


def test_decoding_is_left_to_the_rank_that_needs_it(make_set: MakeSet, monkeypatch) -> None:
    import components.shards.reader as module

    count = Counter()

    def counted(raw, fields=None):
        count["decoded"] += 1
        return decode(raw, fields)

    monkeypatch.setattr(module, "decode", counted)
    order(make_set(8), 2, rank=1, world_size=4, **STREAM)
    assert count["decoded"] == 2


def without(manifest: ShardManifest, name: str, batches: int, position: int = 0, **settings: Any) -> Any:
    source = reader(manifest, left_out=[name], **settings)
    found = []
    for batch in islice(source.batches(position=position), batches):
        found.append((numbers(batch), source.position))
    return found


@PATHS
def test_a_shard_left_out_leaves_gaps_and_no_repeats(make_set: MakeSet, limit) -> None:
    manifest = make_set(3, 5, 4)  # the second holds 3..7
    flat = [n for batch in order(manifest, 12, **limit) for n in batch]
    (Path(manifest.folder) / "train-000001.tar").unlink()
    found = without(manifest, "train-000001.tar", 7, **limit)
    kept = [n for n in flat if not 3 <= n <= 7]
    assert [n for batch, _ in found for n in batch] == kept[:28]  # four epochs of seven, in the same order


@PATHS
def test_position_takes_up_where_a_reader_with_gaps_stood(make_set: MakeSet, limit) -> None:
    manifest = make_set(3, 5, 4)
    whole = without(manifest, "train-000001.tar", 9, **limit)
    for done in (1, 3, 5):
        rest = without(manifest, "train-000001.tar", 9 - done, position=whole[done - 1][1], **limit)
        assert rest == whole[done:]


def test_position_without_gaps_is_a_multiple_of_the_batch(make_set: MakeSet) -> None:
    source = reader(make_set(3, 5))
    for number, _ in zip(range(1, 6), source.batches(), strict=False):
        assert source.position == 4 * number


def test_every_shard_left_out_is_refused(make_set: MakeSet) -> None:
    with pytest.raises(ValueError, match="every shard of split 'train' .* is left out"):
        reader(make_set(2, 2), left_out=["train-000000.tar", "train-000001.tar"])


@PATHS
def test_a_fault_names_its_shard_and_travels_between_processes(make_set: MakeSet, limit) -> None:
    import pickle

    from components.shards import DamagedShard

    manifest = make_set(3, 3)
    path = Path(manifest.folder) / "train-000001.tar"
    data = path.read_bytes()
    at = data.index(b"\x93NUMPY")
    path.write_bytes(data[:at] + b"spoiled" + data[at + 7 :])  # whole as a tar, no array any more
    with pytest.raises(DamagedShard, match=r"train-000001\.tar is damaged: .*npy") as caught:
        order(manifest, 3, **limit)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.names, str(again)) == (("train-000001.tar",), str(caught.value))


@pytest.fixture
def remote(make_set: MakeSet) -> tuple[ShardManifest, ShardManifest]:
    """A set in a folder, and the same below a URL."""
    here = make_set(3, 5, 2)
    url = f"memory://{uuid.uuid4().hex}/shards"
    fsspec.filesystem("memory").put(f"{here.folder}/", url.removeprefix("memory:/") + "/", recursive=True)
    return here, here.model_copy(update={"folder": url})


@PATHS
def test_a_set_in_a_store_gives_the_same_batches(remote, limit) -> None:
    here, there = remote
    assert order(there, 6, 2, **limit) == order(here, 6, 2, **limit)
    assert len(load_split(there, "train")) == 10


@PATHS
def test_faults_of_a_set_in_a_store_are_named(remote, limit) -> None:
    _, there = remote
    store, place = fsspec.url_to_fs(f"{there.folder}/train-000001.tar")
    store.pipe_file(place, store.cat_file(place)[:5000])
    with pytest.raises(DamagedShard, match=r"memory://.*train-000001\.tar is damaged") as caught:
        order(there, 3, **limit)
    assert caught.value.names == ("train-000001.tar",)
    store.rm_file(place)
    with pytest.raises(DamagedShard, match=r"1 shards are missing in memory://"):
        reader(there, **limit)


@PATHS
def test_a_sample_brings_fields_of_another_photo_of_the_same_person(
    make_set: MakeSet, make_sample: Callable[..., Sample], tmp_path: Path, limit
) -> None:
    people = {0: "ann", 1: "bob", 2: "ann", 3: "cleo", 4: "ann", 5: "bob"}
    samples = [make_sample(number) for number in people]
    for number, sample in enumerate(samples):
        sample["meta.json"] |= {"person": people[number]}
    manifest = make_set(6)
    write_shard(tmp_path, "train-000000.tar", "train", [encode(sample) for sample in samples])
    found = reader(manifest, batch_size=6, others=["features.npy"], **limit)
    batch = next(found.batches())
    next_photo = {0: 2, 2: 4, 4: 0, 1: 5, 5: 1, 3: 3}  # cleo has one photo alone
    for row, number in enumerate(numbers(batch)):
        other = samples[next_photo[number]]["features.npy"]
        np.testing.assert_array_equal(batch[f"{OTHER}features.npy"][row], other)
        np.testing.assert_array_equal(batch["features.npy"][row], samples[number]["features.npy"])
    assert f"{OTHER}identity.npy" not in batch


@PATHS
def test_other_photos_change_neither_order_nor_places(make_set: MakeSet, limit) -> None:
    manifest = make_set(3, 5, 2)
    assert order(manifest, 9, others=["features.npy"], **limit) == order(manifest, 9, **limit)
    assert order(manifest, 4, 5, others=["features.npy"], **limit) == order(manifest, 9, **limit)[5:]
