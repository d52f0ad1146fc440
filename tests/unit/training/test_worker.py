"""Where a worker goes on from: Ray's last checkpoint, a newer one that Ray does not know, or the start."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from components.training import worker as module
from tests.unit.training.test_store import checkpoint


class Listed:
    """A checkpoint as Ray hands it over."""

    def __init__(self, folder):
        self._folder = folder

    @contextmanager
    def as_directory(self):
        yield str(self._folder)


@pytest.mark.parametrize(
    ("of_ray", "mended", "damaged", "taken"),
    [
        (None, None, None, None),
        ("checkpoint_2", None, None, "checkpoint_2"),
        (None, "checkpoint_2", None, "checkpoint_2"),
        ("checkpoint_2", "checkpoint_3", None, "checkpoint_3"),  # Ray's list was behind when the run started
        ("checkpoint_3", "checkpoint_2", None, "checkpoint_3"),  # and has gone on since
        ("checkpoint_3", None, "checkpoint_3", "checkpoint_2"),
    ],
)
def test_the_newest_whole_checkpoint_is_taken(make_job, monkeypatch, of_ray, mended, damaged, taken):
    import ray.train

    store = make_job().folder / "checkpoints"
    for name in ("checkpoint_1", "checkpoint_2", "checkpoint_3"):
        checkpoint(store / name, whole=name != damaged)
    job = replace(make_job(), resume_from=mended and store / mended)
    resumed = []

    class Worker:
        def __init__(self, job, rank, world_size):
            assert (rank, world_size) == (1, 2)

        def resume(self, folder):
            resumed.append(folder)

        def run(self, report):
            assert report is module.report_checkpoint

    context = SimpleNamespace(get_world_rank=lambda: 1, get_world_size=lambda: 2)
    monkeypatch.setattr(module, "Worker", Worker)
    monkeypatch.setattr(module, "quiet_libraries", lambda: None)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: of_ray and Listed(store / of_ray))
    module.run_worker({"job": job})
    assert resumed == [taken and store / taken]
