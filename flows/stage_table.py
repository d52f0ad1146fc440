"""The stages by name: what each needs, what decides its result, where it may run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.core import (
    Checkpoint,
    EvaluationReport,
    Personalization,
    PhotoFolder,
    Promotion,
    Record,
    ShardManifest,
)
from flows.config import PipelineConfig
from flows.environment import cores
from flows.stage_work import (
    draw_portraits,
    evaluate_adapter,
    personalize_requests,
    prepare_shards,
    promote_model,
    train_adapter,
)

Work = Callable[[PipelineConfig, Path, Path], Record]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        record: Kind of record that it writes.
        work: (config, own folder, records folder) -> record.
        settings: Parts of the config that decide its result.
        rooms: Rooms whose code decides its result; a change there makes earlier results stale.
        upstream: Stages whose records it reads, given the config.
        shared: Its folder is shared by all runs with the same fingerprint.
        always: Runs even when its record is there; it keeps a finer account of its own.
        changeable: Settings that change no sample, and so not its folder.
        reads: Upstream stages whose folders must be here; others are read where they lie, or not at all.
        shown: Whoever started it reads what it made: its folder comes back from the store.
        not_sent: Names in its folder that its room sends to the store itself, or never.
        apart: Works in a folder named after its fingerprint: other settings never meet its checkpoints.
        workers: Number of its processes that compute at once, given the config.
    """

    record: type[Record]
    work: Work
    settings: tuple[str, ...]
    rooms: tuple[str, ...]
    upstream: Callable[[PipelineConfig], tuple[str, ...]] = lambda config: ()
    shared: bool = False
    always: bool = False
    apart: bool = False
    reads: tuple[str, ...] = ()
    shown: bool = False
    not_sent: tuple[str, ...] = ()
    changeable: tuple[str, ...] = ()
    workers: Callable[[PipelineConfig], int] = lambda config: 1


DRAWING = ("portraits/world", "portraits/dataset.py")  # the base model's training beside them draws nobody

STAGES: dict[str, Stage] = {
    "portraits": Stage(PhotoFolder, draw_portraits, ("portraits", "runtime.seed"), DRAWING, shared=True),
    "prepare": Stage(
        ShardManifest,
        prepare_shards,
        ("prepare", "face", "model", "photos", "runtime.seed"),
        ("prepare", "face", "shards"),
        upstream=lambda config: () if config.photos or not config.prepare.needs_folder else ("portraits",),
        shared=True,
        changeable=(
            "prepare.max_reject_share",
            "prepare.face_workers",
            "prepare.face_gpus",
            "prepare.encode_workers",
            "prepare.contact_sheet_samples",
        ),
        workers=lambda config: _cpus(config),
    ),
    "train": Stage(
        Checkpoint,
        train_adapter,
        ("name", "train", "model", "face", "tracking", "runtime.seed", "runtime.dtype"),
        ("training", "model"),
        upstream=lambda config: ("prepare",),
        apart=True,
        not_sent=("checkpoints", "progress.json"),
        workers=lambda config: config.train.num_workers,
    ),
    "evaluate": Stage(
        EvaluationReport,
        evaluate_adapter,
        ("evaluation", "model", "face"),
        ("evaluation", "inference"),
        upstream=lambda config: ("prepare", "train"),
        reads=("train",),
        shown=True,
    ),
    "promote": Stage(
        Promotion,
        promote_model,
        ("registry", "tracking"),
        ("registry",),
        upstream=lambda config: ("prepare", "train", "evaluate"),
        reads=("train", "evaluate"),
    ),
    "personalize": Stage(
        Personalization,
        personalize_requests,
        ("batch", "face", "tracking"),
        ("inference",),
        always=True,
        shown=True,
        workers=lambda config: _cpus(config),
    ),
}


def stage_named(name: str) -> Stage:
    """Returns the stage, or raises ValueError with the names that exist."""
    if name not in STAGES:
        raise ValueError(f"stage {name!r} is not known; allowed: {', '.join(STAGES)}")
    return STAGES[name]


def _cpus(config: PipelineConfig) -> int:
    return config.runtime.num_cpus or cores()


def threads_for(name: str, config: PipelineConfig) -> int:
    """Returns how many threads each process of the stage may start, to fill the cores once."""
    return max(1, _cpus(config) // stage_named(name).workers(config))
