"""What Ray's pipeline costs over a bare loop, what a second core brings, and whether memory stays."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pytest
import skimage
from PIL import Image

from tests.factories import tiny_base

PROJECT = Path(__file__).resolve().parents[2]
SHIPPED = PROJECT / "components" / "portraits" / "base"
SETTINGS = {
    "validation_share": 0, "heldout_share": 0, "samples_per_shard": 64, "batch_size": 16, "face_workers": 1,
    "encode_workers": 1, "contact_sheet_samples": 0,
}  # fmt: skip
WINDOW = 64  # photos
WALL, PROCESSOR = 1, 2  # places in a mark


def photos_in(folder: Path, count: int, side: int) -> Path:
    """Real photographs of one head under small shifts; no two files have the same bytes."""
    head = np.asarray(Image.fromarray(skimage.data.astronaut()[20:276, 90:346]).resize((side, side)))
    folder.mkdir()
    for i in range(count):
        picture = np.roll(head, i % 5, axis=1).copy()
        picture[0, :2] = i % 256, i // 256, 0
        Image.fromarray(picture).save(folder / f"{i:05d}.jpg", quality=95)
        with (folder / f"{i:05d}.jpg").open("ab") as file:
            file.write(b"%d" % i)
    return folder


def run(
    engine: str, photos: Path, out: Path, base: Path = SHIPPED, settings: dict | None = None, **more
) -> dict:
    """Runs one preparation in a process of its own and returns what it found."""
    words = {"engine": engine, "photos": str(photos), "base": str(base), "out": str(out), **more}
    words["settings"] = SETTINGS | (settings or {})
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.prepare_run", json.dumps(words)],
        cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def windows(found: dict, place: int) -> list[float]:
    """Returns seconds a photo in steady state: of each window but the first, which fills the pipeline, and
    the last two, in which it runs empty."""
    marks = [mark for mark in found["marks"] if mark[0] % WINDOW == 0]
    pairs = list(zip(marks, marks[1:], strict=False))[1:-2]
    assert len(pairs) >= 3
    return [(b[place] - a[place]) / WINDOW for a, b in pairs]


def keep(results: dict, name: str, value: float, against: str, **more) -> None:
    results[name] = {"value": round(value, 4), "reference": against, **more}
    print(f"{name}: {value:.3f} x {against} {more}")


def spin(seconds: float) -> float:
    """Returns the processor seconds that a busy process gets in so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return time.process_time()


def free_cores(seconds: float = 1.5) -> float:
    """Returns how many cores busy processes of this one's priority really get now."""
    count = os.cpu_count() or 1
    with multiprocessing.get_context("fork").Pool(count) as pool:
        return sum(pool.map(spin, [seconds] * count)) / seconds


def test_prepare_over_bare(bench_results, tmp_path: Path) -> None:
    """Ray with one actor a stage, all of it on one core, against a loop in one process.

    Compared are processor seconds a photo, of the driver, Ray's own processes and the actors together: where
    one core does all the work that is its throughput, and a busy neighbour does not change it.
    """
    photos = photos_in(tmp_path / "photos", 640, 128)
    core = [psutil.Process().cpu_affinity()[-1]]
    bare, ray = [], []
    for number, engine in enumerate(("plain", "ray", "plain")):
        found = run(engine, photos, tmp_path / f"out{number}", cores=core)
        (ray if engine == "ray" else bare).append(found)
    of_bare = [s for found in bare for s in windows(found, PROCESSOR)]
    of_ray = [s for found in ray for s in windows(found, PROCESSOR)]
    value = median(of_bare) / median(of_ray)
    by_clock = median(s for f in bare for s in windows(f, WALL)) / median(windows(ray[0], WALL))
    keep(
        bench_results, "prepare_over_bare", value, "a bare loop of the same functions",
        runs=len(of_ray), bare_ms=round(1000 * median(of_bare), 2), ray_ms=round(1000 * median(of_ray), 2),
        by_clock=round(by_clock, 3), free_cores=round(free_cores(), 2),
    )  # fmt: skip
    assert value >= 0.85


def test_prepare_two_actors(bench_results, tmp_path: Path) -> None:
    """Two actors a stage on two cores against one a stage on one core, by the clock: needs two free cores."""
    free = free_cores()
    if free < 1.8:
        pytest.skip(f"needs two free cores; {free:.2f} are to be had")
    photos = photos_in(tmp_path / "photos", 640, 128)
    one, two = [], []
    for number, workers in enumerate((1, 2, 1)):
        found = run(
            "ray", photos, tmp_path / f"out{number}", cores=psutil.Process().cpu_affinity()[-workers:],
            cpus=workers, settings={"face_workers": workers, "encode_workers": workers},
        )  # fmt: skip
        (one if workers == 1 else two).append(found)
    of_one = [s for found in one for s in windows(found, WALL)]
    of_two = [s for found in two for s in windows(found, WALL)]
    value = median(of_one) / median(of_two)
    keep(
        bench_results, "prepare_two_actors", value, "one actor a stage on one core", runs=len(of_two),
        one_ms=round(1000 * median(of_one), 2), two_ms=round(1000 * median(of_two), 2),
        free_cores=round(min(free, free_cores()), 2),
    )  # fmt: skip
    assert value >= 1.6


@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_photos(bench_results, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    found = {
        count: run(
            "ray", photos_in(tmp_path / f"photos{count}", count, 96), tmp_path / f"out{count}", base, cpus=2
        )
        for count in (500, 5000)
    }
    for what in ("driver", "store"):
        few, many = (found[count][what] / 2**20 for count in (500, 5000))
        value = many / few
        keep(
            bench_results, f"prepare_memory_{what}", value, "the same with 500 photos instead of 5,000",
            mb_500=round(few, 1), mb_5000=round(many, 1),
        )  # fmt: skip
        assert value <= 1.2
