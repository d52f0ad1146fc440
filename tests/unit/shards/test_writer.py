import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.core import sha256_file
from components.shards import Sample, ShardWriter, encode, write_shard


def test_the_same_samples_give_the_same_file(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    samples = [encode(make_sample(i)) for i in range(3)]
    first = write_shard(tmp_path, "a.tar", "train", samples)
    time.sleep(1.1)  # tar keeps times in whole seconds
    second = write_shard(tmp_path, "b.tar", "train", [dict(reversed(s.items())) for s in samples])
    assert first.sha256 == second.sha256 == sha256_file(tmp_path / "a.tar")
    assert first.samples == 3


def test_any_tar_reader_reads_it(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    write_shard(tmp_path, "a.tar", "train", [encode(make_sample(5))])
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
    assert names == sorted(names)
    assert names[0] == "00000005-0.features.npy"
    assert len(names) == 7


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    def samples():
        yield encode(make_sample(1))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, "a.tar", "train", samples())
    assert list(tmp_path.iterdir()) == []


def test_doubled_and_dotted_keys_are_refused(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    sample = encode(make_sample(1))
    with pytest.raises(ValueError, match="twice"):
        write_shard(tmp_path, "a.tar", "train", [sample, sample])
    with pytest.raises(ValueError, match="dot"):
        write_shard(tmp_path, "a.tar", "train", [sample | {"__key__": "a.b"}])


def test_the_writer_numbers_its_tars(tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    with ShardWriter(tmp_path, "heldout", max_samples=2) as writer:
        for i in range(5):
            writer.write(encode(make_sample(i)))
    assert [(s.name, s.samples, s.split) for s in writer.shards] == [
        ("heldout-000000.tar", 2, "heldout"),
        ("heldout-000001.tar", 2, "heldout"),
        ("heldout-000002.tar", 1, "heldout"),
    ]
