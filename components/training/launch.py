"""Ray Train: how many workers, where checkpoints go, how often a run may restart, what the terminal shows."""

import json
import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.core import Progress, fingerprint, write_text_atomic
from components.shards import DamagedShard
from components.training.config import TrainConfig
from components.training.job import (
    CHECKPOINTS_FOLDER,
    OUTCOME_FILE,
    PROGRESS_FILE,
    PROGRESS_S,
    RUN_FILE,
    Job,
)
from components.training.left_out import leave_out, read_left_out
from components.training.start import start_mark
from components.training.store import (
    RAY_LIST,
    StoreFault,
    mend_store,
    newest_unlisted,
    set_list_aside,
    store_fault,
    storing,
)
from components.training.worker import run_worker

logger = logging.getLogger(__name__)
FREE_SETTINGS = TrainConfig.free_settings | {"validation"}  # what may differ between the attempts of one run


def claim_folder(job: Job) -> str | None:
    """Makes the folder this run's own, or makes sure that it already is.

    Returns:
        The MLflow run of an earlier attempt, None if this is the first.

    Raises:
        ValueError: The folder holds another run, or one with other settings.
    """
    fixed = {
        "run_name": job.run_name,
        "seed": job.runtime.seed,
        "train": job.config.model_dump(mode="json", exclude=set(FREE_SETTINGS)),
        "model": job.model.model_dump(mode="json", exclude={"base", "image_encoder"}),
        "started_from": start_mark(job.config),
        "shards": fingerprint(sorted(shard.origin_sha256 for shard in job.manifest.shards)),
    }
    path = job.folder / RUN_FILE
    if not path.is_file():
        with storing("the run's settings", job.folder):
            write_text_atomic(path, json.dumps(fixed | {"mlflow_run_id": job.run_id}, indent=2))
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    run_id = found.pop("mlflow_run_id", None)
    found["train"] = _with_new_settings(found.get("train"))
    found.setdefault("started_from", None)
    if found != fixed:
        differing = sorted(name for name in fixed.keys() | found.keys() if fixed.get(name) != found.get(name))
        raise ValueError(
            f"{job.folder} holds the run {found.get('run_name')!r} with other settings "
            f"({', '.join(differing)} differ): choose another run name, or remove the folder "
            f"to start {job.run_name!r} afresh"
        )
    return run_id


def _with_new_settings(train: Any) -> Any:
    """Settings as an older version stored them, those that it did not know yet at their defaults."""
    try:
        return TrainConfig.parse(train, source=RUN_FILE).model_dump(mode="json", exclude=set(FREE_SETTINGS))
    except ValueError:
        return train  # compared as it is, and so refused


def remember_run_id(folder: Path, run_id: str) -> None:
    """Notes the MLflow run beside the settings of the run."""
    path = folder / RUN_FILE
    values = json.loads(path.read_text(encoding="utf-8"))
    with storing("the run's settings", folder):
        write_text_atomic(path, json.dumps(values | {"mlflow_run_id": run_id}, indent=2))


class RefusedList(RuntimeError):
    """Ray does not take its own list of checkpoints, e.g. that of another version."""


def launch(job: Job) -> dict[str, Any]:
    """Runs the workers to the end, restarting them from the last checkpoint when one dies.

    Damaged shards are left out as far as the config allows, and the workers are started anew.

    Returns:
        What rank 0 wrote at the end: step, `reference_gain` and its company.

    Raises:
        RuntimeError: The run failed more often than allowed; the message holds the first worker's error. A
            `StoreFault` if the run's folder cannot be written.
        ValueError: Training had to stop, e.g. because the loss was no number.
    """
    while True:
        job = replace(job, left_out=read_left_out(job.folder), resume_from=_mended(job))
        try:
            return _run_workers(job)
        except DamagedShard as fault:
            leave_out(job, fault)
        except RefusedList:
            if job.store is not None:
                raise
            set_list_aside(job.folder / CHECKPOINTS_FOLDER / job.run_name)


def _mended(job: Job) -> Path | None:
    """Mends what a killed run leaves half done, and returns the checkpoint that Ray does not know of."""
    place = job.folder / CHECKPOINTS_FOLDER / job.run_name
    if job.store is not None:
        name = newest_unlisted(f"{job.checkpoints}/{job.run_name}")
        return None if name is None else place / name
    with storing("the list of checkpoints", job.folder):
        return mend_store(place)


def _run_workers(job: Job) -> dict[str, Any]:
    """Runs the workers of one start of Ray Train, with its restarts."""
    from ray.exceptions import RayActorError
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, TrainingFailedError

    from components.training.trainer import Trainer

    with storing("the outcome", job.folder):
        (job.folder / OUTCOME_FILE).unlink(missing_ok=True)
    job.send()
    trainer = Trainer(
        run_worker,
        local=job.runtime.ray_address == "local",
        train_loop_config={"job": job},
        scaling_config=scaling(job.config, job.runtime.device),
        run_config=RunConfig(
            name=job.run_name,
            **checkpoint_storage(job),
            checkpoint_config=CheckpointConfig(num_to_keep=job.config.keep_checkpoints),
            failure_config=FailureConfig(max_failures=job.config.max_failures),
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
        ),
    )
    try:
        with ShownProgress(job):
            trainer.fit()
    except (TrainingFailedError, RayActorError) as error:  # of the workers; of Ray's controller
        raise explained(error, job) from error
    finally:
        job.fetch()
    outcome = json.loads((job.folder / OUTCOME_FILE).read_text(encoding="utf-8"))
    if "error" in outcome:
        raise ValueError(f"run {job.run_name!r} stopped: {outcome['error']}")
    return outcome


def checkpoint_storage(job: Job) -> dict[str, Any]:
    """Returns what tells Ray where the checkpoints go: a folder, or a store through fsspec."""
    if job.store is None:
        return {"storage_path": job.checkpoints}
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, place = fsspec.url_to_fs(job.checkpoints, use_listings_cache=False)
    return {"storage_path": place, "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem))}


def explained(error: Exception, job: Job) -> Exception:
    """Returns what went wrong in one line: a ValueError for faults of input, a RuntimeError else.

    Damaged shards and a store that cannot be written come as the errors that they are.
    """
    from components.training.trainer import controller_failure, input_fault, list_refused, worker_failures

    fault = input_fault(error)
    if isinstance(fault, DamagedShard | StoreFault):
        return fault
    if fault is not None:
        return ValueError(f"run {job.run_name!r} stopped: {fault}")
    failures = worker_failures(error)
    if not failures:
        if list_refused(error):
            return RefusedList(f"Ray refuses its list {RAY_LIST} in {job.checkpoints}: {_last_line(error)}")
        told = store_fault(controller_failure(error), "the list of checkpoints", job.folder)
        return told or RuntimeError(f"run {job.run_name!r} failed: {_last_line(error)}")
    first, failure = next(iter(failures.items()))
    kept = f"its checkpoints are in {job.checkpoints}; the same run name goes on from the last"
    return RuntimeError(
        f"run {job.run_name!r} failed more than {job.config.max_failures} times, at last on rank {first} "
        f"with {type(failure).__name__}: {str(failure).strip().splitlines()[0]}; {kept}"
    )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def scaling(config: TrainConfig, device: str) -> Any:
    """Returns Ray's `ScalingConfig`: one process a worker, with its CPUs and at most one GPU."""
    import ray
    from ray.train import ScalingConfig

    use_gpu = config.use_gpu
    if use_gpu is None:
        use_gpu = device != "cpu" and ray.cluster_resources().get("GPU", 0) >= config.num_workers
    resources: dict[str, float] = {"CPU": config.cpus_per_worker}
    if use_gpu:
        resources["GPU"] = 1
    return ScalingConfig(num_workers=config.num_workers, use_gpu=use_gpu, resources_per_worker=resources)


class ShownProgress:
    """Shows the step that rank 0 notes in the run's folder, in the driver's terminal.

    Args:
        job: The run.
        interval_s: Seconds between two looks.
    """

    def __init__(self, job: Job, interval_s: float = 0.5) -> None:
        self._path, self._store = job.folder / PROGRESS_FILE, job.store
        self._interval_s = interval_s if job.store is None else 2 * PROGRESS_S
        self._total, self._start = job.config.steps, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="training-progress")

    def __enter__(self) -> None:
        self._path.unlink(missing_ok=True)
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        progress: Progress | None = None
        while not self._done.wait(self._interval_s):
            try:
                if self._store is not None:
                    self._store.fetch_file(self._path)
                seen = json.loads(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            start = seen["start"]  # the clock starts with the first step, not with Ray; again after a restart
            if progress is None or start != self._start:
                label = f"train from step {start}" if start else "train"
                progress, self._start = Progress(label, self._total - start, "steps"), start
            if seen["step"] - start > progress.count:
                progress.advance(seen["step"] - start - progress.count, note=f"loss {seen['loss']:.4f}")
        if progress is not None:
            progress.__exit__()
