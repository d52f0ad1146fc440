from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.core import ShardManifest
from components.shards import Sample, encode, verify_shards, write_shard

MakeSet = Callable[..., ShardManifest]


def test_a_whole_set_has_no_faults(make_set: MakeSet) -> None:
    assert verify_shards(make_set(3, 2)) == []


def test_a_missing_tar(make_set: MakeSet) -> None:
    manifest = make_set(1, 1)
    (Path(manifest.folder) / "train-000000.tar").unlink()
    assert verify_shards(manifest) == ["train-000000.tar: missing"]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_flipped_byte(make_set: MakeSet, share: float) -> None:
    manifest = make_set(2)
    path = Path(manifest.folder) / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 0x40
    path.write_bytes(data)
    assert "train-000000.tar: checksum differs from the manifest" in verify_shards(manifest)


def replaced(manifest: ShardManifest, samples: list[Sample], count: int) -> ShardManifest:
    """The set with its second tar rewritten, and checksums that fit: only a look inside can tell."""
    shard = write_shard(Path(manifest.folder), "train-000001.tar", "train", map(encode, samples))
    return manifest.model_copy(
        update={"shards": (manifest.shards[0], shard.model_copy(update={"samples": count}))}
    )


def test_a_doubled_sample(make_set: MakeSet, make_sample: Callable[..., Sample]) -> None:
    faults = verify_shards(replaced(make_set(2, 1), [make_sample(0)], 1))
    assert faults == ["train-000001.tar: sample 00000000-0 is also in train-000000.tar"]


def test_a_missing_sample(make_set: MakeSet, make_sample: Callable[..., Sample]) -> None:
    faults = verify_shards(replaced(make_set(2, 2), [make_sample(2)], 2))
    assert faults == ["train-000001.tar: 1 samples, expected 2"]


def test_a_wrong_shape(make_set: MakeSet, make_sample: Callable[..., Sample]) -> None:
    wrong = make_sample(2) | {"features.npy": np.zeros((3, 2, 9), np.float16)}
    (fault,) = verify_shards(replaced(make_set(2, 1), [wrong], 1))
    assert "features.npy: axis D is 9, expected 5" in fault
