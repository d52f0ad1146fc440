"""Several runs, one after the other, in a group of worker processes without Ray."""

import multiprocessing
import os
import traceback
from pathlib import Path
from typing import Any

from components.training.job import Job


def run_group(jobs: list[Job], world_size: int, store: Path) -> None:
    """Runs jobs to their ends on `world_size` ranks.

    Args:
        jobs: Their folders are filled as those of any run.
        world_size: Processes.
        store: A file that does not exist yet, through which they find each other.

    Raises:
        RuntimeError: A rank failed.
    """
    context = multiprocessing.get_context("spawn")
    failures: Any = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(jobs, rank, world_size, str(store), failures))
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise RuntimeError(failures.get(timeout=5) if not failures.empty() else "a rank died")


def _rank(jobs: list[Job], rank: int, world_size: int, store: str, failures: Any) -> None:
    import torch

    from components.training.loop import Worker

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world_size
        )
        for job in jobs:
            worker = Worker(job, rank, world_size)
            worker.resume(None)
            worker.run(lambda step, folder: torch.distributed.barrier())
    except BaseException:
        failures.put(traceback.format_exc())
        raise
