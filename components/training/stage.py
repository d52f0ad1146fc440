"""The training stage: shards in, adapter and its record out."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from components.core import Checkpoint, RuntimeConfig, ShardManifest, SharedStore, TrackingConfig, ray_session
from components.face import FaceConfig, identity_onnx_path
from components.model import ModelConfig
from components.training.config import TrainConfig
from components.training.job import ADAPTER_FILE, Job
from components.training.launch import claim_folder, launch, remember_run_id
from components.training.start import check_start
from components.training.step import TERMS
from components.training.tracking import absolute, close_run, open_run, read_history

logger = logging.getLogger(__name__)


def train(
    *,
    config: TrainConfig,
    model: ModelConfig,
    face: FaceConfig,
    runtime: RuntimeConfig,
    tracking: TrackingConfig,
    manifest: ShardManifest,
    folder: Path,
    run_name: str,
    store: SharedStore | None = None,
) -> Checkpoint:
    """Trains an adapter on the training split and measures `reference_gain` on held-out people.

    A folder that holds checkpoints of this very run is taken up where it stopped.

    Args:
        config: The run.
        model: Base and adapter.
        face: Where the identity network of the face loss is found.
        runtime: Device, dtype, seed, Ray.
        tracking: MLflow.
        manifest: Prepared shards with features and latents.
        folder: The run's own folder.
        run_name: Shown in MLflow and in the record.
        store: What the nodes share where they do not share the folder; it holds the checkpoints then.

    Raises:
        ValueError: Settings, shards or folder do not fit; or the loss was no number.
        RuntimeError: Workers failed more often than `max_failures`.
    """
    check_manifest(manifest, config)
    check_identity_network(config, face, model)
    check_start(config, model)
    job = replace(make_job(config, model, face, runtime, tracking, manifest, folder, run_name), store=store)
    job.fetch()
    earlier = claim_folder(job)
    settings = {"train": config.model_dump(mode="json"), "model": model.model_dump(mode="json")}
    run_id = open_run(job.tracking, run_name, earlier, settings | {"seed": runtime.seed})
    remember_run_id(job.folder, run_id)
    status = "FAILED"
    try:
        with ray_session(runtime):
            outcome = launch(replace(job, run_id=run_id))
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        with _lenient(status != "FINISHED"):  # a full disk is MLflow's too; what broke the run is to be seen
            close_run(job.tracking, run_id, status)
    low, high = outcome["reference_gain_interval"]
    return Checkpoint(
        count_in=outcome["step"] * config.global_batch_size,
        count_out=outcome["step"],
        run_name=run_name,
        folder=str(job.folder),
        adapter=str(job.folder / ADAPTER_FILE),
        step=outcome["step"],
        losses=last_losses(job.folder) | {"heldout": outcome["heldout_loss"]},
        reference_gain=outcome["reference_gain"],
        reference_gain_interval=(low, high),
        mlflow_run_id=run_id,
    )


@contextmanager
def _lenient(failed: bool) -> Iterator[None]:
    """Lets nothing cover the error that ended a failed run."""
    try:
        yield
    except Exception as error:
        if not failed:
            raise
        logger.warning("MLflow did not take the status: %s", error)


def check_manifest(manifest: ShardManifest, config: TrainConfig) -> None:
    """Raises a ValueError if the shards cannot be trained on."""
    if not manifest.samples.get("train"):
        raise ValueError(f"the shards in {manifest.folder} hold no training samples: {manifest.samples}")
    if not manifest.samples.get("heldout") and not manifest.samples.get("validation"):
        raise ValueError(
            f"the shards in {manifest.folder} hold no held-out or validation people ({manifest.samples}): "
            "reference_gain cannot be measured"
        )


def check_identity_network(config: TrainConfig, face: FaceConfig, model: ModelConfig) -> None:
    """Raises a ValueError, before anything is started, if the identity loss has no network."""
    base = Path(model.base)
    if config.looks_at_faces:
        identity_onnx_path(face, base if base.is_dir() else None)


def make_job(
    config: TrainConfig,
    model: ModelConfig,
    face: FaceConfig,
    runtime: RuntimeConfig,
    tracking: TrackingConfig,
    manifest: ShardManifest,
    folder: Path,
    run_name: str,
) -> Job:
    """Makes every path absolute: workers have a working directory of their own."""
    if not run_name or "/" in run_name or run_name.startswith("."):
        raise ValueError(f"run name {run_name!r} must be a plain name: it becomes a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return Job(
        config=config.model_copy(update=_absolute_paths(config, ("start_from",))),
        model=model.model_copy(update=_absolute_paths(model, ("base", "image_encoder"))),
        face=face.model_copy(update=_absolute_paths(face, ("pack", "identity_onnx"))),
        runtime=runtime,
        tracking=absolute(tracking),
        manifest=manifest.model_copy(update={"folder": _whole(manifest.folder)}),
        folder=folder.absolute(),
        run_name=run_name,
    )


def _whole(place: str) -> str:
    """A path made absolute; a URL as it is."""
    return place if "://" in place else str(Path(place).absolute())


def _absolute_paths(config: TrainConfig | ModelConfig | FaceConfig, names: tuple[str, ...]) -> dict[str, str]:
    """Local paths among some settings, made absolute; hub ids and None stay."""
    values = {name: getattr(config, name) for name in names}
    return {
        name: str(Path(value).absolute()) for name, value in values.items() if value and Path(value).exists()
    }


def last_losses(folder: Path) -> dict[str, float]:
    """Returns the loss terms of the last row of the log."""
    rows = [row for row in read_history(folder) if "loss" in row]
    return {name: rows[-1][name] for name in TERMS} if rows else {}
