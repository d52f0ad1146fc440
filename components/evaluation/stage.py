"""The evaluate stage: held-out references -> pictures -> judges -> report, and the same figures in MLflow."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.core import (
    Checkpoint,
    EvaluationReport,
    RuntimeConfig,
    ShardManifest,
    TrackingConfig,
    fingerprint,
    sha256_file,
)
from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo, choose_people, choose_references, load_photos
from components.evaluation.facts import write_report
from components.evaluation.generate import (
    Generator,
    Shot,
    load_pictures,
    make_missing,
    plan_base_shots,
    plan_shots,
)
from components.evaluation.judges import FaceFinder, load_judges
from components.evaluation.panel import Evidence, judge
from components.evaluation.tracking import log_to_run

if TYPE_CHECKING:
    from components.face import FaceConfig
    from components.model import ModelConfig

logger = logging.getLogger(__name__)


def evaluate(
    *,
    config: EvaluationConfig,
    model: "ModelConfig",
    face: "FaceConfig",
    runtime: RuntimeConfig,
    tracking: TrackingConfig,
    manifest: ShardManifest,
    checkpoint: Checkpoint,
    folder: Path,
) -> EvaluationReport:
    """Measures how well a trained adapter keeps the identity of people it never saw.

    Args:
        config: What is measured.
        model: The model that the adapter was trained on.
        face: Detector and recogniser.
        runtime: Device and dtype.
        tracking: MLflow; the figures go to the checkpoint's run where it has one.
        manifest: Shards with the held-out people.
        checkpoint: The adapter.
        folder: Where pictures, `report.json` and `report.html` are written. Pictures that are there already
            and were made with the same adapter, base and dials are kept.

    Raises:
        ValueError: No held-out people, fewer than two, or a missing weight file.
    """
    from components.evaluation.personalizer import PersonalizerGenerator
    from components.face import load_detector

    photos = choose_people(load_photos(manifest, config.split), config.people)
    judges = load_judges(
        face,
        Path(model.base),
        identity_onnx=config.identity_onnx,
        judge_onnx=config.judge_onnx,
        colour_bins=config.colour_bins,
    )
    pictures = folder / f"pictures-{made_from(config, model, checkpoint)}"
    generator = PersonalizerGenerator.load(config, model, face, runtime, checkpoint)
    evidence = gather(config, photos, generator, pictures)
    verdict = judge(config, evidence, FaceFinder(load_detector(face)), judges)
    report = write_report(config, evidence, verdict, checkpoint, folder, model_base=Path(model.base).name)
    log_to_run(tracking, checkpoint.mlflow_run_id, verdict.tables, folder)
    return report


def made_from(config: EvaluationConfig, model: "ModelConfig", checkpoint: Checkpoint) -> str:
    """Returns 16 hex digits of everything that the pixels depend on, save person and seed."""
    return fingerprint(
        sha256_file(Path(checkpoint.adapter)),
        model,
        config.dials,
        config.prompt,
        config.base_prompt,
        config.negative_prompt,
    )


def gather(config: EvaluationConfig, photos: Sequence[Photo], generator: Generator, folder: Path) -> Evidence:
    """Makes the pictures that are missing below `folder` and reads all of them."""
    references = choose_references(photos, config.references_per_person)
    index = {photo.key: i for i, photo in enumerate(photos)}
    shots: list[list[Shot]] = plan_shots(config, references, folder)
    base_shots = plan_base_shots(config, references, folder)
    make_missing([shot for row in shots for shot in row] + base_shots, generator, config.batch_size)
    return Evidence(
        photos=photos,
        reference_R=np.array([index[reference.key] for reference in references]),
        generated=[load_pictures(row) for row in shots],
        base=load_pictures(base_shots),
    )
