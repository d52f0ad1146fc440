"""Takes samples out of a shard set: each tar is written anew without them, and the manifest says so.

What is left keeps its place: the places of forgotten samples are noted as gaps (`ShardFile.gaps`), which
readers pass over. A run that is resumed therefore goes on in the order that it began with, and sees no sample
twice.

new tars beside the old ones -> forgetting.json (the plan) -> tars, manifest -> forgetting.json goes

Killed before the plan is there, nothing has happened; killed after it, `put_in_place` does the rest.
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from components.core import ShardFile, ShardManifest, StrictConfig, sha256_file, write_text_atomic
from components.shards.reader import read_raw
from components.shards.schema import META
from components.shards.verify import open_manifest
from components.shards.writer import write_shard

MANIFEST, PLAN = "manifest.json", "forgetting.json"


class ForgottenSample(StrictConfig):
    """One sample that is taken out.

    Attributes:
        shard: Name of its tar.
        key: Its key.
        file: The photo that it was made of, and `licence` of that photo, as its meta.json says.
    """

    shard: str
    key: str
    file: str
    licence: str = ""


class ForgettingPlan(StrictConfig):
    """The tars as they will be, and what they will no longer hold."""

    shards: tuple[ShardFile, ...]
    samples: tuple[ForgottenSample, ...]


def is_one_of(person: str, people: Collection[str]) -> bool:
    """Tells whether a sample's person is meant: by the whole name, or without its source (`faces/ada`)."""
    return person in people or person.rpartition("/")[2] in people


def sets_below(places: Iterable[Path]) -> list[Path]:
    """Returns the folders of all shard sets below the places."""
    folders = {path.parent for at in places for path in at.rglob(MANIFEST) if _is_manifest(path)}
    return sorted(folders)


def find_samples(folder: Path, people: Collection[str]) -> list[ForgottenSample]:
    """Returns the samples of the people that a set holds, by tar and key.

    Raises:
        DamagedShard: A tar cannot be read.
    """
    found = []
    for shard in open_manifest(folder).shards:
        for raw, meta in _samples(folder / shard.name):
            if is_one_of(meta["person"], people):
                key, licence = raw["__key__"], meta.get("licence") or ""
                found.append(ForgottenSample(shard=shard.name, key=key, file=meta["file"], licence=licence))
    return found


def plan_forgetting(folder: Path, people: Collection[str]) -> ForgettingPlan | None:
    """Writes the new tars beside the old ones, then the plan; None if the set holds nobody of them.

    Args:
        folder: The set's folder, in which nobody else writes meanwhile.
        people: Who goes.

    Raises:
        DamagedShard: A tar cannot be read.
    """
    samples = find_samples(folder, people)
    if not samples:
        return None
    gone = {sample.shard: {s.key for s in samples if s.shard == sample.shard} for sample in samples}
    shards = [
        _write_without(folder, shard, gone[shard.name])
        for shard in open_manifest(folder).shards
        if shard.name in gone
    ]
    plan = ForgettingPlan(shards=tuple(shards), samples=tuple(samples))
    write_text_atomic(folder / PLAN, plan.model_dump_json(indent=1) + "\n")
    return plan


def open_plan(folder: Path) -> ForgettingPlan | None:
    """Returns the plan of a forgetting that was begun in the folder, None if there is none."""
    path = folder / PLAN
    if not path.is_file():
        return None
    return ForgettingPlan.parse(json.loads(path.read_text(encoding="utf-8")), source=str(path))


def put_in_place(folder: Path, plan: ForgettingPlan) -> ShardManifest:
    """Puts the new tars and the manifest in place; may be done again after a kill.

    The plan stays: who keeps more about the set does that first, then calls `close_plan`.
    """
    for shard in plan.shards:
        new = _new(folder, shard)
        if new.is_file():
            os.replace(new, folder / shard.name)
        if sha256_file(folder / shard.name) != shard.sha256:
            raise ValueError(f"{folder / shard.name} is damaged: it is neither the old tar nor the new one")
    manifest = without_forgotten(open_manifest(folder), plan)
    manifest.save(folder / MANIFEST)
    return manifest


def close_plan(folder: Path) -> None:
    """Says that everything is done."""
    (folder / PLAN).unlink(missing_ok=True)


def without_forgotten(manifest: ShardManifest, plan: ForgettingPlan) -> ShardManifest:
    """Returns the manifest with the plan's tars and their counts; of one that has them already, itself."""
    if {*plan.shards} <= {*manifest.shards}:
        return manifest
    new = {shard.name: shard for shard in plan.shards}
    shards = tuple(new.get(shard.name, shard) for shard in manifest.shards)
    counts = {split: sum(s.samples for s in shards if s.split == split) for split in manifest.samples}
    licences = Counter(manifest.licences)
    licences.subtract(sample.licence for sample in plan.samples)
    return manifest.model_copy(
        update={
            "shards": shards,
            "samples": counts,
            "count_out": sum(counts.values()),
            "licences": {name: count for name, count in licences.items() if count > 0},
            "contact_sheet": None,  # it showed whoever came first
        }
    )


def _write_without(folder: Path, shard: ShardFile, keys: set[str]) -> ShardFile:
    """Writes the new tar of a shard beside the old one, and returns how the manifest will name it."""
    held = [place for place in range(shard.places) if place not in shard.gaps]
    named = [raw["__key__"] for raw, _ in _samples(folder / shard.name)]
    gone = [place for place, key in zip(held, named, strict=True) if key in keys]
    kept = (raw for raw, _ in _samples(folder / shard.name) if raw["__key__"] not in keys)
    written = write_shard(folder, _new(folder, shard).name, shard.split, kept)
    return shard.model_copy(
        update={
            "samples": written.samples,
            "sha256": written.sha256,
            "gaps": tuple(sorted({*shard.gaps, *gone})),
            "made_sha256": shard.origin_sha256,
        }
    )


def _new(folder: Path, shard: ShardFile) -> Path:
    return folder / f".{shard.name}.forgetting.tmp"  # a half is removed as every half is


def _samples(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields each encoded sample of a tar, and what its meta.json says."""
    for raw in read_raw([path]):
        yield raw, json.loads(raw[META])


def _is_manifest(path: Path) -> bool:
    try:
        open_manifest(path)
    except ValueError:
        return False
    return True
