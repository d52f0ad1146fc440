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
    "validation_share": 0, "heldout_share": 0, "samples_per_shard": 32, "batch_size": 16, "face_workers": 1,
    "encode_workers": 1, "contact_sheet_samples": 0,
}  # fmt: skip
WINDOW = 32  # photos
SIDE = 448  # pixels of a photo, as FairFace ships them with padding 1.25
WALL, PROCESSOR, WITH_SERVICES = 1, 2, 3  # places in a mark


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
    words = {"engine": engine, "photos": str(photos), "base": str(base), "out": str(out)}
    words |= {"every": WINDOW, **more}
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
    marks = found["marks"]
    pairs = list(zip(marks, marks[1:], strict=False))[1:-2]
    assert len(pairs) >= 3
    return [(b[place] - a[place]) / WINDOW for a, b in pairs]


def compared(before: list[dict], after: list[dict], place: int) -> tuple[float, float, float]:
    """Returns the median milliseconds a photo of the one and the other, and how many times faster it is."""
    slow, fast = (median(s for found in runs for s in windows(found, place)) for runs in (before, after))
    return round(1000 * slow, 2), round(1000 * fast, 2), round(slow / fast, 4)


def keep(results: dict, name: str, value: float, against: str, **more) -> None:
    results[name] = {"value": round(value, 4), "reference": against, **more}
    print(f"{name}: {value:.3f} x {against} {more}")


def spin(core: int, seconds: float = 1.5) -> float:
    """Returns the share of a core that a busy process gets for so many seconds."""
    psutil.Process().cpu_affinity([core])
    start, end = time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return (time.process_time() - start) / seconds


def free_cores() -> float:
    """Returns how many cores busy processes of this one's priority really get now."""
    cores = psutil.Process().cpu_affinity()
    with multiprocessing.get_context("fork").Pool(len(cores)) as pool:
        return sum(pool.map(spin, cores, chunksize=1))


def test_prepare_over_bare(bench_results, tmp_path: Path) -> None:
    """Ray with one actor a stage against a loop in one process, both on one core.

    Compared are processor seconds a photo of driver and actors, which a busy neighbour does not stretch.
    `with_services` counts what Ray runs on each machine beside them too: about 6% of one core, whatever there
    is to do; `by_clock` is the throughput when all of that shares the one core.
    """
    photos = photos_in(tmp_path / "photos", 320, SIDE)
    core = [psutil.Process().cpu_affinity()[-1]]
    bare, ray = [], []
    for number, engine in enumerate(("plain", "ray", "plain")):
        found = run(engine, photos, tmp_path / f"out{number}", cores=core)
        (ray if engine == "ray" else bare).append(found)
    of_bare, of_ray, value = compared(bare, ray, PROCESSOR)
    keep(
        bench_results, "prepare_over_bare", value, "a bare loop of the same functions",
        runs=len(windows(ray[0], WALL)), bare_ms=of_bare, ray_ms=of_ray,
        with_services=compared(bare, ray, WITH_SERVICES)[2], by_clock=compared(bare, ray, WALL)[2],
        free_cores=round(free_cores(), 2),
    )  # fmt: skip
    assert value >= 0.85


def test_prepare_two_actors(bench_results, tmp_path: Path) -> None:
    """Two actors a stage on two cores against one a stage on one core, by the clock: needs two free cores."""
    free = free_cores()
    if free < 1.8:
        pytest.skip(f"needs two free cores; {free:.2f} are to be had")
    photos = photos_in(tmp_path / "photos", 320, SIDE)
    one, two = [], []
    for number, workers in enumerate((1, 2, 1)):
        found = run(
            "ray", photos, tmp_path / f"out{number}", cores=psutil.Process().cpu_affinity()[-workers:],
            cpus=workers, settings={"face_workers": workers, "encode_workers": workers},
        )  # fmt: skip
        (one if workers == 1 else two).append(found)
    of_one, of_two, value = compared(one, two, WALL)
    keep(
        bench_results, "prepare_two_actors", value, "one actor a stage on one core",
        runs=len(windows(two[0], WALL)), one_ms=of_one, two_ms=of_two,
        free_cores=round(min(free, free_cores()), 2),
    )  # fmt: skip
    assert value >= 1.6


@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_photos(bench_results, tmp_path: Path) -> None:
    base = tiny_base(tmp_path / "base")
    found = {}
    for count in (500, 5000):
        photos = photos_in(tmp_path / f"photos{count}", count, 96)
        found[count] = run("ray", photos, tmp_path / f"out{count}", base, cpus=2, watch_memory=True)
    for what in ("driver", "store"):
        few, many = (found[count][what] / 2**20 for count in (500, 5000))
        value = many / few
        keep(
            bench_results, f"prepare_memory_{what}", value, "the same with 500 photos instead of 5,000",
            mb_500=round(few, 1), mb_5000=round(many, 1),
        )  # fmt: skip
        assert value <= 1.2
