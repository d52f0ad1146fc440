"""The evaluate stage: held-out references -> pictures -> judges -> report, and the same figures in MLflow."""

import logging
from collections.abc import Sequence
from dataclasses import replace
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
from components.evaluation.clip_score import ClipScorer, load_clip, load_image_tower
from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo, choose_people, choose_references, load_photos
from components.evaluation.evidence import Evidence
from components.evaluation.extras import Extras, extras_metrics
from components.evaluation.facts import write_report
from components.evaluation.generate import (
    Generator,
    Shot,
    load_pictures,
    make_missing,
    plan_base_shots,
    plan_shots,
    read_cost,
)
from components.evaluation.judges import FaceFinder, load_judges
from components.evaluation.looks import Looker, judge_curve, judge_obedience
from components.evaluation.obedience import load_reader
from components.evaluation.panel import judge
from components.evaluation.prompts import load_prompt_set
from components.evaluation.quality import Quality, inception_features, measure_quality
from components.evaluation.series import plan_series
from components.evaluation.tracking import log_to_run
from components.inference import Dials

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

    sets = [load_prompt_set(name) for name in config.prompt_sets]
    photos = choose_people(load_photos(manifest, config.split), config.people)
    judges = load_judges(
        face,
        Path(model.base),
        identity_onnx=config.identity_onnx,
        judge_onnx=config.judge_onnx,
        colour_bins=config.colour_bins,
    )
    reader = load_reader(Path(model.base)) if sets else None
    for prompt in (prompt for one in sets for prompt in one.prompts):
        if reader:
            reader.check(prompt.expects)
    pictures = folder / f"pictures-{made_from(config, model, checkpoint)}"

    def folder_of(prompt: str, dials: Dials) -> Path:
        return folder / f"pictures-{series_mark(config, model, checkpoint, prompt, dials)}"

    generator = PersonalizerGenerator.load(config, model, face, runtime, checkpoint)
    finder = FaceFinder(load_detector(face))
    evidence = gather(config, photos, generator, pictures)
    decoded = generator.through_vae([photo.target_uint8 for photo in evidence.references])
    evidence = replace(evidence, through_vae=decoded)
    series = plan_series(config, evidence.references, sets, folder_of)
    make_missing([shot for one in series for shot in one.shots], generator, config.batch_size)
    verdict = judge(config, evidence, finder, judges)
    clip = load_clip(config.clip, model)
    looker = Looker(config, finder, judges[0], evidence.photos, reader, clip)
    extras = Extras(
        protocol=[looker.point([one], one.label) for one in series if one.kind == "protocol"],
        obedience=judge_obedience(looker, series, sets),
        curve=judge_curve(looker, series),
        quality=quality_of(config, model, evidence, clip),
        cost=read_cost(pictures / "cost.json"),
    )
    report = write_report(
        config, evidence, verdict, checkpoint, folder, model_base=Path(model.base).name, extras=extras
    )
    log_to_run(tracking, checkpoint.mlflow_run_id, verdict.tables, folder, extras_metrics(report, extras))
    return report


def quality_of(
    config: EvaluationConfig, model: "ModelConfig", evidence: Evidence, clip: ClipScorer | None
) -> Quality:
    """Returns FID, KID and sharpness through the features that are at hand."""
    if config.inception_onnx:
        features, name = inception_features(Path(config.inception_onnx)), "Inception"
    else:
        clip = clip or load_image_tower(model)
        features, name = clip.images, f"CLIP ({clip.name})"
    real = [photo.target_uint8 for photo in evidence.photos]
    made = [picture for row in evidence.generated for picture in row]
    return measure_quality(real, made, evidence.base, features, name, config.seed)


def series_mark(
    config: EvaluationConfig, model: "ModelConfig", checkpoint: Checkpoint, prompt: str, dials: Dials
) -> str:
    """Returns 16 hex digits of everything that the pixels of a series depend on, save person and seed."""
    adapter = sha256_file(Path(checkpoint.adapter))
    return fingerprint("series", adapter, model, dials, prompt, config.negative_prompt)


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
    wanted = [shot for row in shots for shot in row]
    make_missing([*wanted, *base_shots], generator, config.batch_size, folder / "cost.json")
    return Evidence(
        photos=photos,
        reference_R=np.array([index[reference.key] for reference in references]),
        generated=[load_pictures(row) for row in shots],
        base=load_pictures(base_shots),
        files=[[shot.path for shot in row] for row in shots],
    )
