"""The function that Ray Train runs in each worker, and what it hands back."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from components.core import setup_logging
from components.training.checkpoint import last_whole, scratch_folder
from components.training.job import Job
from components.training.loop import Worker


def run_worker(values: dict[str, Any]) -> None:
    """The per-worker function that Ray Train calls; `values["job"]` is the `Job`."""
    import ray.train

    job: Job = values["job"]
    quiet_libraries()
    torch.set_num_threads(job.config.cpus_per_worker)
    context = ray.train.get_context()
    job.fetch()
    worker = Worker(job, context.get_world_rank(), context.get_world_size())
    listed = ray.train.get_checkpoint()
    with unlisted(job) as mended, nullcontext() if listed is None else listed.as_directory() as folder:
        known = [mended, None if folder is None else Path(folder)]
        latest = max((path for path in known if path is not None), key=lambda path: path.name, default=None)
        worker.resume(None if latest is None else last_whole(latest))
    worker.run(report_checkpoint)


@contextmanager
def unlisted(job: Job) -> Iterator[Path | None]:
    """Yields the checkpoint that Ray does not know of; a copy of it where the nodes share no folder."""
    if job.store is None or job.resume_from is None:
        yield job.resume_from
        return
    import fsspec

    filesystem, place = fsspec.url_to_fs(f"{job.checkpoints}/{job.run_name}/{job.resume_from.name}")
    with scratch_folder() as scratch:
        copy = scratch / job.resume_from.name
        filesystem.get(f"{place}/", f"{copy}/", recursive=True)
        yield copy


def quiet_libraries() -> None:
    """Leaves our own log, and warnings of the libraries."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    setup_logging(level=logging.WARNING)
    logging.getLogger("components").setLevel(logging.INFO)
    logging.getLogger("ray").setLevel(logging.WARNING)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def report_checkpoint(step: int, folder: Path | None) -> None:
    """Hands a checkpoint to Ray, which copies it to the run's storage; a barrier over all ranks."""
    import ray.train

    checkpoint = None if folder is None else ray.train.Checkpoint.from_directory(str(folder))
    ray.train.report({"step": step}, checkpoint=checkpoint)
