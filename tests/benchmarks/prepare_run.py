"""One run of preparation in a process of its own, timed from outside: what the benchmarks of it measure.

    python -m tests.benchmarks.prepare_run '{"engine": "ray", "photos": ..., "base": ..., "out": ..., ...}'

Prints JSON: marks (photos finished, wall seconds, processor seconds of the driver and the actors, and of the
whole process tree with the services that Ray keeps on each machine), and peaks of the driver's own memory
and of Ray's object store.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import psutil

from components.core import RuntimeConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.prepare import PrepareConfig
from components.prepare.engines import PlainEngine, RayEngine
from components.prepare.pipeline import prepare_with

SAMPLE_S = 0.2
Mark = tuple[int, float, float, float]
# What runs on each machine of a Ray cluster whether it has work or not.
SERVICES = ("gcs_server", "raylet/raylet", "Agent", "Tracker", "Coordinator", "StatsActor", "monitor.py")


def processor_seconds() -> tuple[float, float]:
    """Returns what this process and the workers that it started have used, and the same with the services."""
    total, services = 0.0, 0.0
    for one in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            times, words = one.cpu_times(), " ".join(one.cmdline())
            total += times.user + times.system
            if any(name in words for name in SERVICES):
                services += times.user + times.system
    return total - services, total


class Marking:
    """An engine that notes when how many photos were finished."""

    def __init__(self, engine, every: int) -> None:
        self.engine, self.every = engine, every
        self.marks: list[Mark] = []

    def rows(self, *args) -> Iterator[dict]:
        for number, row in enumerate(self.engine.rows(*args), start=1):
            yield row
            if number % self.every == 0:
                self.marks.append((number, time.monotonic(), *processor_seconds()))


class Peaks(threading.Thread):
    """Looks at the driver's memory and Ray's object store five times a second.

    The driver's own memory (USS) leaves out what it sees of the object store, which is counted by itself.
    """

    def __init__(self, *, with_ray: bool) -> None:
        super().__init__(daemon=True)
        self.with_ray, self.driver, self.store = with_ray, 0, 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_S):
            self.driver = max(self.driver, psutil.Process().memory_full_info().uss)
            if self.with_ray:
                self.store = max(self.store, stored_bytes())


def stored_bytes() -> float:
    """Returns the bytes of the object store that are taken."""
    import ray

    name = "object_store_memory"
    if not ray.is_initialized():
        return 0.0
    with suppress(Exception):  # Ray may be going
        return ray.cluster_resources().get(name, 0.0) - ray.available_resources().get(name, 0.0)
    return 0.0


def main(words: dict) -> None:
    if words.get("cores"):
        psutil.Process().cpu_affinity(words["cores"])
    with_ray = words["engine"] == "ray"
    runtime = RuntimeConfig(device="cpu", num_cpus=words.get("cpus", 1))
    peaks = Peaks(with_ray=with_ray)
    with RayEngine(runtime) if with_ray else nullcontext(PlainEngine()) as engine:
        marking = Marking(engine, words["every"])
        if words.get("watch_memory"):  # costs a few percent of a core
            peaks.start()
        manifest = prepare_with(
            marking, config=PrepareConfig(**words["settings"]), face=FaceConfig(),
            model=ModelConfig(base=words["base"]), source_folder=Path(words["photos"]),
            folder=Path(words["out"]),
        )  # fmt: skip
        peaks.ended.set()
    found = {"marks": marking.marks, "driver": peaks.driver, "store": peaks.store, "out": manifest.count_out}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
