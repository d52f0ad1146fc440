from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.core import ShardManifest
from components.shards import Sample, encode, open_manifest, verify_shards, write_shard

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


def test_a_wrong_shape_of_the_first_sample(make_set: MakeSet) -> None:
    manifest = make_set(1)
    other = manifest.model_copy(update={"latent_shape": (4, 8, 8)})
    (fault,) = verify_shards(other)
    assert "latents.npy: axis h is 4, expected 8" in fault


def test_a_tar_that_nobody_named_and_a_split_that_does_not_add_up(make_set: MakeSet) -> None:
    manifest = make_set(1, 2)
    (Path(manifest.folder) / "train-000009.tar").write_bytes(b"")
    wrong = manifest.model_copy(update={"samples": {"train": 4}})
    assert verify_shards(wrong) == [
        "split train: the shards name 3 samples, the manifest 4",
        "train-000009.tar: not named in the manifest",
    ]


def test_a_set_is_opened_where_it_is_now(make_set: MakeSet, tmp_path: Path) -> None:
    manifest = make_set(2)
    manifest.save(Path(manifest.folder) / "manifest.json")
    moved = tmp_path.parent / f"{tmp_path.name} moved"
    tmp_path.rename(moved)
    for path in (moved, moved / "manifest.json"):
        assert verify_shards(open_manifest(path)) == []
    moved.rename(tmp_path)
    with pytest.raises(ValueError, match="no prepare record at"):
        open_manifest(tmp_path / "nowhere")


def test_the_command(make_set: MakeSet, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli import main

    manifest = make_set(2, 1).model_copy(update={"count_out": 3})
    folder = Path(manifest.folder)
    manifest.save(folder / "manifest.json")
    assert main(["verify-shards", str(folder)]) == 0
    assert capsys.readouterr().out == "2 shards, 3 samples: whole\n"
    (folder / "train-000001.tar").unlink()
    assert main(["verify-shards", str(folder / "manifest.json")]) == 1
    assert capsys.readouterr().out == "train-000001.tar: missing\n2 shards, 3 samples: 1 faults\n"
    assert main(["verify-shards", str(folder / "nowhere")]) == 2
    assert "no prepare record at" in capsys.readouterr().err


def test_a_wrong_shape(make_set: MakeSet, make_sample: Callable[..., Sample]) -> None:
    wrong = make_sample(2) | {"features.npy": np.zeros((3, 2, 9), np.float16)}
    (fault,) = verify_shards(replaced(make_set(2, 1), [wrong], 1))
    assert "features.npy: axis D is 9, expected 5" in fault
