"""Damaged or missing shards that a run goes on without: which, how many samples, how many may.

They are noted in the run's folder, and the run goes on from its last checkpoint: the samples that remain come
as they would have, none twice. Removing the note takes mended shards back in.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from components.core import ShardManifest, write_text_atomic
from components.shards import DamagedShard
from components.training.job import LEFT_OUT_FILE, Job
from components.training.store import storing

logger = logging.getLogger(__name__)


def read_left_out(folder: Path) -> frozenset[str]:
    """Returns the names of the shards that the run in a folder goes on without."""
    path = folder / LEFT_OUT_FILE
    return frozenset(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else frozenset()


def samples_in(manifest: ShardManifest, names: Iterable[str]) -> int:
    """Returns the number of samples in some shards."""
    wanted = set(names)
    return sum(shard.samples for shard in manifest.shards if shard.name in wanted)


def leave_out(job: Job, fault: DamagedShard) -> None:
    """Notes damaged shards, so that the run goes on without them.

    Raises:
        ValueError: They are not of the training split, or that would be more than `damaged_share` allows.
    """
    train = {shard.name for shard in job.manifest.shards if shard.split == "train"}
    names = read_left_out(job.folder) | set(fault.names)
    lost, total = samples_in(job.manifest, names), job.manifest.samples["train"]
    allowed = job.config.damaged_share
    if not set(fault.names) <= train or lost > allowed * total:
        hint = f"train.damaged_share = {allowed:g} lets {int(allowed * total)} of {total} samples be left out"
        raise ValueError(f"run {job.run_name!r} stopped: {fault}; {hint}") from fault
    path = job.folder / LEFT_OUT_FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in fault.names:
        known[name] = {"samples": samples_in(job.manifest, [name]), "fault": str(fault)}
    with storing("the note of shards left out", job.folder):
        write_text_atomic(path, json.dumps(known, indent=2))
    logger.warning("%s; going on without: %d of %d samples are left out now", fault, lost, total)
