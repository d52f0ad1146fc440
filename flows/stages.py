"""Running a stage: whether its work is done, what must be at hand, in which folder, and its record.

`photoverse stage NAME --config FILE --out RECORD` comes here. A stage reads the records of earlier stages
from the folder of `--out` and writes its own there. Which stages there are is in `stage_table.py`, what one
does is in its room; the rooms' code is imported only when the stage runs.
"""

import fcntl
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core import Record, fingerprint
from flows.config import PipelineConfig, anchored
from flows.digests import code_digest, file_digest, weights_digest
from flows.environment import PROJECT
from flows.stage_store import bring_file, bring_folder, bring_records, send_file, shared, there
from flows.stage_table import STAGES, Stage, stage_named
from flows.stage_work import people_folder, photo_folder, read_record

logger = logging.getLogger(__name__)


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
    bring_records(config, out.parent)
    identity = stage_fingerprint(name, config, out.parent)
    folder = stage_folder(name, config, out.parent)
    if (found := _finished(config, stage, out, identity)) and not stage.always:
        logger.info("%s: done before (%s), nothing to do", name, identity)
        return found
    with alone(folder):
        kept = folder / "record.json"
        if stage.shared:
            bring_file(config, kept)
        found = _finished(config, stage, kept, identity) if stage.shared else None
        record = found or _work(name, config, folder, out.parent, identity)
        if stage.shared and not found:
            record.save(kept)
            send_file(config, kept)
    logger.info("%s: %d in, %d out, %.1f s%s", name, record.count_in, record.count_out, record.seconds,
                " (kept from an earlier run)" if found else "")  # fmt: skip
    record.save(out)
    send_file(config, out)
    return record


def _work(name: str, config: PipelineConfig, folder: Path, records: Path, identity: str) -> Record:
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    stage = STAGES[name]
    bring_inputs(name, config, records)
    own = [folder, people_folder(config)] if name == "personalize" else [folder]
    with shared(config, own, (*stage.not_sent, "record.json")):
        record = stage.work(anchored(config), folder, records)
    return record.model_copy(update={"fingerprint": identity, "seconds": round(time.monotonic() - start, 3)})


def bring_inputs(name: str, config: PipelineConfig, records: Path) -> None:
    """Brings the folders of earlier stages that the stage reads, where a store stands for the root."""
    for other in STAGES[name].reads if config.store else ():
        bring_folder(config, _place_of(read_record(STAGES[other].record, records)))
    if name == "prepare":
        bring_folder(config, people_folder(config))  # its log says who was forgotten


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
    if name == "train" and config.train.start_from is not None:
        inputs["start_from"] = file_digest(config.train.start_from)
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
    if stage.always:
        return None
    bring_records(config, out.parent)
    if not out.is_file():
        return None
    found = _finished(config, stage, out, stage_fingerprint(name, config, out.parent))
    return found and collect(name, config, out)


def collect(name: str, config: PipelineConfig, out: Path) -> Record:
    """Returns the record of a stage that has run somewhere, what it made at hand where that is shown."""
    bring_file(config, out)
    record = STAGES[name].record.load(out)
    if STAGES[name].shown:
        bring_folder(config, _place_of(record))
    return record


def _finished(config: PipelineConfig, stage: Stage, file: Path, identity: str) -> Record | None:
    """Returns the record if it stands for this very work and what it describes is still there."""
    if not file.is_file():
        return None
    try:
        record = stage.record.load(file)
    except ValueError as error:
        logger.warning("%s is not usable, the stage runs again: %s", file, error)
        return None
    whole = all(there(config, PROJECT / path) for path in _paths_of(record))
    return record if record.fingerprint == identity and whole else None


def _paths_of(record: Record) -> Iterator[str]:
    for key in ("folder", "adapter", "report_json", "report_html", "ledger"):
        value = getattr(record, key, None)
        if value and "://" not in value:
            yield value


def _place_of(record: Record) -> Path:
    """Returns the folder that a record of an earlier stage describes."""
    folder = getattr(record, "folder", None)
    return PROJECT / (folder or Path(getattr(record, "report_json")).parent)  # noqa: B009 - only some kinds have it


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
