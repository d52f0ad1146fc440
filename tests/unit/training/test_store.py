"""A full, read-only or vanished folder is put into words; half-done checkpoints are cleared away."""

import errno
import json
import os
import re
import shutil
import subprocess

import pytest
from ray.train import ControllerError
from safetensors import SafetensorError

from components.training.launch import RefusedList, claim_folder, explained, launch
from components.training.store import (
    RAY_LIST,
    StoreFault,
    check_store,
    mend_store,
    replace_folder,
    storing,
)
from tests.unit.training.made_runs import run_alone

BARE = {"validation": {"timesteps": 1, "sample_people": 0}}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "x"),
            r"the log could not be written to .*: No space left on device \(\d+ MB free\)",
        ),
        (PermissionError(errno.EACCES, "x"), "Permission denied"),
        (FileNotFoundError(errno.ENOENT, "x"), "No such file or directory"),
        (SafetensorError('IoError(Os { code: 28, kind: StorageFull, message: "x" })'), "No space left"),
    ],
)
def test_lasting_faults_are_told(tmp_path, error, said):
    with pytest.raises(StoreFault, match=said), storing("the log", tmp_path):
        raise error


def test_what_may_pass_is_left_to_restarts(tmp_path):
    with pytest.raises(OSError, match="stale") as caught, storing("the log", tmp_path):
        raise OSError(errno.ESTALE, "stale")
    assert not isinstance(caught.value, StoreFault)


def checkpoint(folder, *, whole=True):
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    if whole:
        from components.core import sha256_file

        listing = {"state.json": sha256_file(folder / "state.json")}
        (folder / "files.json").write_text(json.dumps(listing))
    return folder


def listed(folder, *names):
    values = {"checkpoint_results": [{"checkpoint_dir_name": name, "metrics": {}} for name in names]}
    (folder / RAY_LIST).write_text(json.dumps(values))


def test_a_list_that_serves_is_left_and_a_failed_save_removed(tmp_path):
    for name in ("checkpoint_1", "checkpoint_2"):
        checkpoint(tmp_path / name)
    checkpoint(tmp_path / "checkpoint_3", whole=False)
    listed(tmp_path, "checkpoint_1", "checkpoint_2")
    assert mend_store(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_1", "checkpoint_2", RAY_LIST]


@pytest.mark.parametrize("fault", ["cut", "names one that is gone"])
def test_a_damaged_list_goes_and_the_newest_whole_checkpoint_is_taken(tmp_path, fault):
    for name in ("checkpoint_1", "checkpoint_2"):
        checkpoint(tmp_path / name)
    checkpoint(tmp_path / "checkpoint_3", whole=False)
    listed(tmp_path, "checkpoint_2", "checkpoint_4")
    if fault == "cut":
        os.truncate(tmp_path / RAY_LIST, 20)
    assert mend_store(tmp_path) == tmp_path / "checkpoint_2"
    assert not (tmp_path / RAY_LIST).exists()
    assert (tmp_path / f"{RAY_LIST}.damaged").exists()
    assert mend_store(tmp_path) == tmp_path / "checkpoint_2"  # as often as it takes to make a new list


def test_a_checkpoint_that_the_list_does_not_have_yet_is_not_lost(tmp_path):
    for name in ("checkpoint_1", "checkpoint_2", "checkpoint_3"):
        checkpoint(tmp_path / name)
    listed(tmp_path, "checkpoint_1", "checkpoint_2")
    assert mend_store(tmp_path) == tmp_path / "checkpoint_3"
    assert (tmp_path / RAY_LIST).exists()
    listed(tmp_path, "checkpoint_2", "checkpoint_3")
    assert mend_store(tmp_path) is None
    (tmp_path / RAY_LIST).unlink()
    assert mend_store(tmp_path) == tmp_path / "checkpoint_3"


def test_a_first_save_that_failed_lets_the_run_start_afresh(tmp_path):
    checkpoint(tmp_path / "checkpoint_1", whole=False)
    assert mend_store(tmp_path) is None
    assert not list(tmp_path.iterdir())
    assert mend_store(tmp_path / "nothing") is None
    (tmp_path / RAY_LIST).write_text("")  # the disk was full
    assert mend_store(tmp_path) is None
    assert not (tmp_path / RAY_LIST).exists()


def test_a_run_that_has_lost_every_checkpoint_says_so(tmp_path):
    checkpoint(tmp_path / "checkpoint_1", whole=False)
    (tmp_path / RAY_LIST).write_text("{")
    for _ in range(2):  # nothing starts afresh in silence, however often it is tried
        with pytest.raises(ValueError, match=r"no checkpoint to resume from: .*files\.json is missing"):
            mend_store(tmp_path)


READ_ONLY = OSError(errno.EROFS, "Failed to open local file")
REFUSED = (
    "The actor died because of an error raised in its creation task: CheckpointManagerInitializationError"
)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ControllerError(READ_ONLY), StoreFault, "list of checkpoints could not be .* Read-only file system"),
        (RuntimeError("creation task: OSError: [Errno 28] Error writing"), StoreFault, "No space left"),
        (RuntimeError(REFUSED), RefusedList, "creation task"),
        (ControllerError(RuntimeError("no such luck")), RuntimeError, "run 'test' failed: no such luck"),
    ],
)
def test_what_breaks_rays_controller_is_told_in_our_words(make_job, error, kind, said):
    told = explained(error, make_job())
    assert type(told) is kind
    assert re.search(said, str(told))


def test_a_list_that_ray_refuses_all_the_same_is_set_aside_and_the_run_goes_on(make_job, monkeypatch):
    job = make_job()
    store = job.folder / "checkpoints" / job.run_name
    checkpoint(store / "checkpoint_1")
    listed(store, "checkpoint_1")
    starts = []

    def start(job):
        starts.append(job.resume_from)
        if len(starts) == 1:
            raise RefusedList(REFUSED)
        return {"step": 6}

    monkeypatch.setattr("components.training.launch._run_workers", start)
    assert launch(job) == {"step": 6}
    assert starts == [None, store / "checkpoint_1"]
    assert (store / f"{RAY_LIST}.damaged").exists()


def test_a_folder_is_replaced_whole(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    for _ in range(2):
        replace_folder(tmp_path / "new", tmp_path / "old")
        assert [path.name for path in (tmp_path / "old").iterdir()] == ["new.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_in_mid_run_is_told_and_the_run_goes_on_once_there_is_room(
    make_job, base, manifest, small_disk, finished, tmp_path
):
    from dataclasses import replace

    def fill(rank, inputs):
        if inputs.step == 4:
            with (small_disk / "filler").open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass

    job = replace(make_job(**BARE), folder=small_disk / "run", hook=fill)
    job.folder.mkdir()
    claim_folder(job)
    with pytest.raises(StoreFault, match="No space left on device"):
        run_alone(job)
    (small_disk / "filler").unlink()
    kept = job.folder / "kept-3"
    run_alone(replace(job, hook=None), resume_from=kept)
    expected = (finished[0].folder / "adapter.safetensors").read_bytes()
    assert (job.folder / "adapter.safetensors").read_bytes() == expected


def test_a_vanished_folder_is_told_and_nothing_grows_in_its_place(make_job, finished):
    from dataclasses import replace

    job = make_job(**BARE)
    elsewhere = job.folder.with_name("elsewhere")
    claim_folder(job)

    def vanish(rank, inputs):
        if inputs.step == 4:
            job.folder.rename(elsewhere)

    with pytest.raises(StoreFault, match=f"{job.folder}.*the same run name goes on"):
        run_alone(replace(job, hook=vanish))
    assert not job.folder.exists()
    with pytest.raises(StoreFault, match="has vanished"):
        check_store(job.folder)
    elsewhere.rename(job.folder)
    run_alone(job, resume_from=job.folder / "kept-3")
    expected = (finished[0].folder / "adapter.safetensors").read_bytes()
    assert (job.folder / "adapter.safetensors").read_bytes() == expected


def test_a_folder_that_cannot_be_made_is_told(make_job, monkeypatch):
    job = make_job()

    def refuse(path, text):
        raise OSError(errno.EROFS, "x")

    monkeypatch.setattr("components.training.launch.write_text_atomic", refuse)
    with pytest.raises(StoreFault, match="the run's settings could not be written .*Read-only file system"):
        claim_folder(job)


def test_settings_that_an_older_version_did_not_know_do_not_bar_a_run(make_job):
    job = make_job()
    claim_folder(job)
    path = job.folder / "run.json"
    values = json.loads(path.read_text())
    del values["train"]["divergence"], values["train"]["face_loss"]["decoded"]
    path.write_text(json.dumps(values))
    claim_folder(job)
    values["train"]["divergence"] = {"max_returns": 5}
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="train differ"):
        claim_folder(job)
    shutil.rmtree(job.folder)
