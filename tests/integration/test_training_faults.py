"""What can befall a week of training, tried on Ray: each ends as an undisturbed run, or says why not.

Faults of the disk are real ones: a small file system in memory is mounted, filled and made read-only, which
needs root; without it those tests are left out. `test_store.py` among the unit tests has quick ones.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.training.checkpoint import check_checkpoint
from components.training.launch import launch
from components.training.store import RAY_LIST, StoreFault
from components.training.tracking import read_history
from tests.integration.made_training import (
    all_of,
    assert_same_run,
    disturbed_job,
    kill,
    noting,
    once,
    visits,
)

pytestmark = pytest.mark.slow


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints" / "disturbed").glob("checkpoint_*/"))


def test_five_kills_change_nothing(undisturbed, parts, ray_local, tmp_path):
    """Five times kill -9 of one of two workers, each before a step and on a rank drawn at random."""
    rng = np.random.default_rng(20)
    steps = sorted(int(step) for step in rng.choice(np.arange(1, 20), 5, replace=False))
    kills = [
        once(int(rng.integers(2)), step, tmp_path / f"killed-{number}", kill())
        for number, step in enumerate(steps)
    ]
    notes = tmp_path / "notes"
    hook = all_of(*kills, noting(notes))
    job = disturbed_job(parts, tmp_path / "run", hook, checkpoint_every=3, max_failures=5)
    launch(job)
    assert len(list(tmp_path.glob("killed-*"))) == 5
    assert_same_run(job.folder, Path(undisturbed.folder))
    assert set(visits(notes, range(18)).values()) == {6}  # 18 steps of 8 are six epochs of 24 samples


def filling(folder: Path) -> Callable[[], None]:
    """Fills the file system to the last byte."""

    def act() -> None:
        with (folder / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    return act


def remounting(folder: Path) -> Callable[[], None]:
    def act() -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)

    return act


def moving(folder: Path) -> Callable[[], None]:
    def act() -> None:
        folder.rename(folder.with_name("elsewhere"))

    return act


def once_listed(folder: Path, act: Callable[[], None]) -> Callable[[], None]:
    """Acts when Ray's controller has noted a checkpoint: the worker is the next to write."""

    def wait_and_act() -> None:
        while not list(folder.glob(f"checkpoints/*/{RAY_LIST}")):
            time.sleep(0.1)
        time.sleep(1)
        act()

    return wait_and_act


def then_waiting(act: Callable[[], None]) -> Callable[[], None]:
    """Acts, and leaves Ray's controller the time to be the next to write."""

    def act_and_wait() -> None:
        act()
        time.sleep(8)

    return act_and_wait


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


FAULTS = {
    "full": (filling, "No space left on device"),
    "read-only": (remounting, "Read-only file system"),
    "vanished": (moving, "vanished|No such"),
}


@pytest.mark.parametrize("met_by", ["worker", "controller"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_is_told_and_taken_up_once_mended(
    undisturbed, parts, ray_local, small_disk, tmp_path, fault, met_by
):
    """Ray's controller notes a checkpoint up to two seconds after it is saved: either may be the first."""
    folder = small_disk / "run"
    make, told = FAULTS[fault]
    act = make(folder if fault == "vanished" else small_disk)
    at_step, act = (13, once_listed(folder, act)) if met_by == "worker" else (8, then_waiting(act))
    job = disturbed_job(parts, folder, once(0, at_step, tmp_path / "marker", act))
    with pytest.raises(StoreFault, match=told) as caught:
        launch(job)
    assert str(folder) in str(caught.value)
    assert "the same run name goes on from" in str(caught.value)
    if fault == "full":
        (small_disk / "filler").unlink()
    elif fault == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    else:
        assert not folder.exists()  # nothing has grown in its place
        (small_disk / "elsewhere").rename(folder)
    whole = [path for path in checkpoints(folder) if not fault_of(path)]
    assert [json.loads((path / "state.json").read_text())["step"] for path in whole] == [8]
    notes = tmp_path / "notes"
    launch(replace(job, hook=noting(notes)))
    assert min(int(note.name[:4]) for note in notes.iterdir()) == 8
    assert_same_run(folder, Path(undisturbed.folder))


def fault_of(checkpoint: Path) -> str | None:
    try:
        check_checkpoint(checkpoint)
    except ValueError as error:
        return str(error)
    return None


def forget_last(listing: Path) -> None:
    """Leaves Ray's list as its controller does when it is killed before it notes the last checkpoint."""
    values = json.loads(listing.read_text())
    for name in ("checkpoint_results", "checkpoint_report_indices"):
        values[name].pop()
    values["latest_checkpoint_result"] = values["checkpoint_results"][-1]
    listing.write_text(json.dumps(values))


@pytest.mark.parametrize("what", ["checkpoint", "list", "both", "list behind"])
def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(
    undisturbed, parts, ray_local, tmp_path, what
):
    job = disturbed_job(
        parts, tmp_path / "run", once(1, 18, tmp_path / "marker", kill()), checkpoint_every=5, max_failures=0
    )
    with pytest.raises(RuntimeError, match="the same run name goes on from the last"):
        launch(job)
    *_, before, last = checkpoints(job.folder)  # of steps 10 and 15; 5 too if Ray has not come to removing it
    if what in ("checkpoint", "both"):
        os.truncate(last / "state.safetensors", (last / "state.safetensors").stat().st_size // 2)
    if what in ("list", "both"):
        os.truncate(last.parent / RAY_LIST, 40)
    if what == "list behind" and last.name in (last.parent / RAY_LIST).read_text():
        forget_last(last.parent / RAY_LIST)
    assert fault_of(before) is None
    notes = tmp_path / "notes"
    launch(replace(job, hook=noting(notes)))
    assert min(int(note.name[:4]) for note in notes.iterdir()) == (
        15 if what in ("list", "list behind") else 10
    )
    assert_same_run(job.folder, Path(undisturbed.folder))


STREAMED = {"reader": {"memory_limit_mb": 0, "shuffle_window": 4}}


def truncating(shard: Path) -> Callable[[], None]:
    def act() -> None:
        os.truncate(shard, 5000)

    return act


def removing(shard: Path) -> Callable[[], None]:
    def act() -> None:
        shard.unlink()

    return act


@pytest.mark.parametrize("damage", [truncating, removing], ids=["truncated", "missing"])
def test_a_shard_damaged_in_mid_run_is_named_or_left_out(parts, ray_local, tmp_path, damage):
    manifest = parts["manifest"]
    copy = shutil.copytree(manifest.folder, tmp_path / "shards")
    shards = [shard for shard in manifest.shards if shard.split == "train"]
    victim = min(shards, key=lambda shard: shard.samples)
    given = parts | {"manifest": manifest.model_copy(update={"folder": str(copy)})}
    notes = tmp_path / "notes"
    hook = all_of(once(0, 4, tmp_path / "marker", damage(copy / victim.name)), noting(notes))
    settings = STREAMED | {"checkpoint_every": 3}
    job = disturbed_job(given, tmp_path / "run", hook, **settings)
    with pytest.raises(ValueError, match=f"stopped: .*{victim.name}.*damaged_share = 0"):
        launch(job)
    reached = min(max(int(note.name[:4]) for note in notes.glob(f"*-{rank}")) for rank in range(2))
    shutil.rmtree(notes)
    notes.mkdir()
    allowed = job.config.model_copy(update={"damaged_share": 0.5})
    outcome = launch(replace(job, config=allowed, hook=noting(notes)))
    assert outcome["step"] == 20
    assert outcome["left_out_samples"] == victim.samples
    assert read_history(job.folder)[-3]["left_out_samples"] == victim.samples
    assert json.loads((job.folder / "left_out.json").read_text())[victim.name]["samples"] == victim.samples
    start = min(int(note.name[:4]) for note in notes.iterdir())
    assert start == (reached + 1) // 3 * 3 < 12  # from the last checkpoint; the reader is some steps ahead
    remaining = 24 - victim.samples
    seen = visits(notes, range(start, 20))
    assert len(seen) == remaining
    assert max(seen.values()) - min(seen.values()) <= 1  # whole epochs and a part of one, none twice in it
