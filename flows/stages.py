"""The stages by name: what each needs, what decides its result, how to tell that its work is done.

`photoverse stage NAME --config FILE --out RECORD` comes here. A stage reads the records of earlier stages
from the folder of `--out` and writes its own there. What a stage does is in its room; the rooms' code is
imported only when the stage runs.
"""

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core import (
    Checkpoint,
    EvaluationReport,
    Personalization,
    PhotoFolder,
    Promotion,
    Record,
    ShardManifest,
    fingerprint,
)
from flows.config import PipelineConfig, anchored
from flows.digests import code_digest, weights_digest
from flows.environment import PROJECT, cores
from flows.stage_work import (
    draw_portraits,
    evaluate_adapter,
    personalize_requests,
    photo_folder,
    prepare_shards,
    promote_model,
    read_record,
    train_adapter,
)

logger = logging.getLogger(__name__)

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
        workers=lambda config: config.train.num_workers,
    ),
    "evaluate": Stage(
        EvaluationReport,
        evaluate_adapter,
        ("evaluation", "model", "face"),
        ("evaluation", "inference"),
        upstream=lambda config: ("prepare", "train"),
    ),
    "promote": Stage(
        Promotion,
        promote_model,
        ("registry", "tracking"),
        ("registry",),
        upstream=lambda config: ("prepare", "train", "evaluate"),
    ),
    "personalize": Stage(
        Personalization,
        personalize_requests,
        ("batch", "face", "tracking"),
        ("inference",),
        always=True,
        workers=lambda config: _cpus(config),
    ),
}


def stage_named(name: str) -> Stage:
    """Returns the stage, or raises ValueError with the names that exist."""
    if name not in STAGES:
        raise ValueError(f"stage {name!r} is not known; allowed: {', '.join(STAGES)}")
    return STAGES[name]


def execute(name: str, config: PipelineConfig, out: Path) -> Record:
    """Runs one stage, unless its work is done, and writes its record.

    Args:
        name: Name of the stage.
        config: The run's config.
        out: File of the record; earlier stages' records are read from its folder.

    Returns:
        The record, new or found.

    Raises:
        ValueError: Unknown stage, a missing record of an earlier stage, or the stage's own complaint about
            its input.
    """
    stage = stage_named(name)
    identity = stage_fingerprint(name, config, out.parent)
    folder = stage_folder(name, config, out.parent)
    if (found := _finished(stage, out, identity)) and not stage.always:
        logger.info("%s: done before (%s), nothing to do", name, identity)
        return found
    with alone(folder):
        kept = folder / "record.json"
        found = _finished(stage, kept, identity) if stage.shared else None
        record = found or _work(name, config, folder, out.parent, identity)
        if stage.shared and not found:
            record.save(kept)
    logger.info("%s: %d in, %d out, %.1f s%s", name, record.count_in, record.count_out, record.seconds,
                " (kept from an earlier run)" if found else "")  # fmt: skip
    record.save(out)
    return record


def _work(name: str, config: PipelineConfig, folder: Path, records: Path, identity: str) -> Record:
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    record = STAGES[name].work(anchored(config), folder, records)
    return record.model_copy(update={"fingerprint": identity, "seconds": round(time.monotonic() - start, 3)})


def stage_folder(name: str, config: PipelineConfig, records: Path) -> Path:
    """Returns the folder that the stage works in, absolute: other photos than last time change nothing."""
    stage = STAGES[name]
    if stage.shared:
        return PROJECT / config.cache / name / stage_fingerprint(name, config, records, of_folder=True)
    apart = stage_fingerprint(name, config, records) if stage.apart else ""
    return PROJECT / config.folder / name / apart


def stage_fingerprint(name: str, config: PipelineConfig, records: Path, *, of_folder: bool = False) -> str:
    """Returns the identity of a stage's result: settings, code, weights, fingerprints of what it reads.

    Args:
        name: Name of the stage.
        config: The run's config.
        records: Folder of the records of earlier stages.
        of_folder: Leave out which photos there are, and settings that change none of the samples: the stage
            then goes on in the folder where it left off.
    """
    stage = stage_named(name)
    settings = {key: _setting(config, key) for key in stage.settings}
    if of_folder:
        for key in stage.changeable:
            room, _, setting = key.partition(".")
            settings[room].pop(setting)
    upstream = {
        other: read_record(STAGES[other].record, records).fingerprint for other in stage.upstream(config)
    }
    inputs: dict[str, Any] = {}
    if "model" in stage.settings:
        inputs["base"] = weights_digest(config.model.base)
    if name == "prepare" and not of_folder:
        inputs["photos"] = _listing(config, records)
    return fingerprint(name, settings, upstream, inputs, [code_digest(room) for room in stage.rooms])


def _setting(config: PipelineConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    if not hasattr(value, "model_dump"):
        return value
    # a run may go on with more workers: what decides only where and how fast is no part of what is made
    return value.model_dump(mode="json", exclude=set(getattr(value, "free_settings", ())))


def finished(name: str, config: PipelineConfig, out: Path) -> Record | None:
    """Returns the stage's record where its work is done and still there: no process is needed."""
    stage = stage_named(name)
    if stage.always or not out.is_file():
        return None
    return _finished(stage, out, stage_fingerprint(name, config, out.parent))


def _finished(stage: Stage, file: Path, identity: str) -> Record | None:
    """Returns the record if it stands for this very work and what it describes is still there."""
    if not file.is_file():
        return None
    try:
        record = stage.record.load(file)
    except ValueError as error:
        logger.warning("%s is not usable, the stage runs again: %s", file, error)
        return None
    there = all((PROJECT / path).exists() for path in _paths_of(record))
    return record if record.fingerprint == identity and there else None


def _paths_of(record: Record) -> Iterator[str]:
    for key in ("folder", "adapter", "report_json", "report_html", "ledger"):
        value = getattr(record, key, None)
        if value and "://" not in value:
            yield value


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a lock beside the folder, so that two runs never make the same thing at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            logger.info("waiting: another process works in %s", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _listing(config: PipelineConfig, records: Path) -> str:
    """Returns the identity of the photos' files; drawn people are known by the record of their stage."""
    from components.prepare import sources_digest

    own = photo_folder(config, records) if config.photos and config.prepare.needs_folder else None
    return sources_digest(anchored(config).prepare, own)


def _cpus(config: PipelineConfig) -> int:
    return config.runtime.num_cpus or cores()


def threads_for(name: str, config: PipelineConfig) -> int:
    """Returns how many threads each process of the stage may start, to fill the cores once."""
    return max(1, _cpus(config) // stage_named(name).workers(config))
