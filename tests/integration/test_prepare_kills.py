"""SIGKILL at random points, of driver and workers: what is there in the end is what would have been there."""

import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
import pytest
import skimage
from PIL import Image

from components.core import RuntimeConfig, ShardManifest, sha256_file
from components.face import FaceConfig
from components.model import ModelConfig
from components.prepare import PrepareConfig
from components.prepare.engines import PlainEngine, RayEngine
from components.prepare.pipeline import prepare_with
from components.shards import open_manifest, verify_shards
from tests.factories import tiny_base

PHOTOS, SHARDS = 48, 12
Start = Callable[..., BaseProcess]

SETTINGS = PrepareConfig(
    validation_share=0, heldout_share=0, samples_per_shard=4, batch_size=2, face_workers=1, encode_workers=1,
    near_duplicate_bits=0,
)  # fmt: skip


def run(place: Path, out: Path, *, with_ray: bool) -> None:
    """The whole of `prepare`, in a child process; without Ray a plain loop stands in its place."""
    engine = RayEngine(RuntimeConfig(device="cpu", num_cpus=2)) if with_ray else nullcontext(PlainEngine())
    with engine as started:
        prepare_with(
            started, config=SETTINGS, face=FaceConfig(), model=ModelConfig(base=str(place / "base")),
            source_folder=place / "photos", folder=out,
        )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, one double and one that is none, and a tiny base."""
    place = tmp_path_factory.mktemp("kills")
    tiny_base(place / "base")
    (place / "photos").mkdir()
    head = np.asarray(Image.fromarray(skimage.data.astronaut()[20:276, 90:346]).resize((128, 128)))
    for i in range(PHOTOS - 2):
        picture = np.roll(head, i % 5, axis=1).copy()
        for bit in range(6):
            picture[:8, 16 * bit : 16 * bit + 16] = 255 * (i >> bit & 1)
        Image.fromarray(picture).save(place / "photos" / f"{i:03d}.png")
    (place / "photos" / "0405 double.png").write_bytes((place / "photos" / "003.png").read_bytes())
    (place / "photos" / "017 text.jpg").write_text("no picture")
    return place


PROCESSES = multiprocessing.get_context("forkserver")  # forked from a process that has no Ray threads to lose


@pytest.fixture
def start(place: Path) -> Start:
    """Starts a run in a process of its own, models loaded by each run."""

    def start(out: Path, *, with_ray: bool = False) -> BaseProcess:
        process = PROCESSES.Process(target=run, args=(place, out), kwargs={"with_ray": with_ray})
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> ShardManifest:
    process = PROCESSES.Process(target=run, args=(place, place / "undisturbed"), kwargs={"with_ray": False})
    process.start()
    process.join()
    manifest = open_manifest(place / "undisturbed")
    assert (manifest.count_in, manifest.count_out) == (PHOTOS, PHOTOS - 2)
    return manifest


def result(process: BaseProcess, timeout_s: float = 170) -> int | None:
    process.join(timeout_s)
    return process.exitcode


def wait_for_shards(process: BaseProcess, out: Path, count: int) -> None:
    """Waits until so many shards are finished, or the process is."""
    while process.exitcode is None and len(list((out / "journal").glob("*.json"))) < count:
        time.sleep(0.002)


def wait_for_worker(process: BaseProcess, stage: str) -> psutil.Process:
    """Returns the process of Ray's actor of a stage, as soon as it is there."""
    while process.exitcode is None:
        for one in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if stage in " ".join(one.cmdline()):
                    return one
        time.sleep(0.05)
    raise AssertionError(f"the run ended, and no worker of {stage} was seen")


def end(process: BaseProcess) -> int | None:
    """Kills a process and all that it started, without a chance to tidy up."""
    psutil.Process(process.pid).suspend()  # while the others are looked for, it must not go on
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    return result(process)


def finished(out: Path) -> dict[str, tuple[int, str]]:
    """Returns journalled shards with their time of writing and checksum."""
    names = [path.stem for path in (out / "journal").glob("*.json")]
    tars = [out / f"{name}.tar" for name in names]
    return {tar.name: (tar.stat().st_mtime_ns, sha256_file(tar)) for tar in tars if tar.is_file()}


def check_resumed(out: Path, kept: dict, undisturbed: ShardManifest) -> None:
    manifest = open_manifest(out)
    assert manifest.shards == undisturbed.shards
    assert manifest.rejects_by_reason == undisturbed.rejects_by_reason
    assert manifest.fingerprint == undisturbed.fingerprint
    assert verify_shards(manifest) == []
    now = finished(out)
    assert kept.items() <= now.items()  # no finished shard was written again
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_driver_that_is_killed_anywhere_and_started_again(
    start: Start, undisturbed: ShardManifest, tmp_path: Path, seed: int
) -> None:
    draw, out = random.Random(seed), tmp_path / "out"
    process = start(out)
    wait_for_shards(process, out, draw.randrange(1, SHARDS))
    time.sleep(draw.uniform(0, 0.2))
    assert process.exitcode is None, "the run was over before the kill"
    assert end(process) == -signal.SIGKILL
    kept = finished(out)
    assert kept
    assert result(start(out)) == 0
    check_resumed(out, kept, undisturbed)


@pytest.mark.slow
def test_a_driver_of_ray_that_is_killed(start: Start, undisturbed: ShardManifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out, with_ray=True)
    wait_for_shards(process, out, 3)
    assert end(process) == -signal.SIGKILL
    kept = finished(out)
    assert 3 <= len(kept) < SHARDS
    assert result(start(out, with_ray=True)) == 0
    check_resumed(out, kept, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["EncodeStage", "FaceStage"])
def test_a_worker_of_ray_that_is_killed(
    start: Start, undisturbed: ShardManifest, tmp_path: Path, stage: str
) -> None:
    out = tmp_path / "out"
    process = start(out, with_ray=True)
    try:
        worker = wait_for_worker(process, stage)
        time.sleep(random.Random(stage).uniform(0, 0.5))
        worker.send_signal(signal.SIGKILL)
        assert result(process) == 0
    finally:
        if process.exitcode is None:
            end(process)
    check_resumed(out, {}, undisturbed)
