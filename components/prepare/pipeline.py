"""Photos -> shards, manifest, rejects and contact sheet.

    sources -> catalogue (disk) -> journal: what is done -> plan -> engine's rows -> one shard at a time

A shard is a fixed group of photos of one split: a run that was killed and continued, or had more workers,
writes the same bytes as one that was not. Only rows in flight and one shard are in memory.
"""

import json
import time
from collections.abc import Collection, Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core import Progress, RuntimeConfig, ShardManifest, remove_halves
from components.face import FaceConfig
from components.prepare.config import PrepareConfig
from components.prepare.doubles import Doubles
from components.prepare.engines import Engine, RayEngine
from components.prepare.forget import check_nothing_half_forgotten, leave_out_forgotten
from components.prepare.journal import Journal, PhotoEntry, ShardEntry
from components.prepare.outputs import counts_of, finish
from components.prepare.people import find_people
from components.prepare.plan import Plan, PlannedPhoto, make_plan
from components.prepare.sources import Catalogue, Library
from components.prepare.spec import resolve
from components.prepare.stages import Row, sample_key
from components.shards import FIELDS, write_shard

if TYPE_CHECKING:
    from components.model import ModelConfig

CATALOGUE = ".catalogue.sqlite"


def prepare(
    *,
    config: PrepareConfig,
    face: FaceConfig,
    model: "ModelConfig",
    runtime: RuntimeConfig,
    source_folder: Path | str | None,
    folder: Path,
    without: Collection[str] = (),
) -> ShardManifest:
    """Turns photos into a shard set; does again only what is not done, or no longer holds.

    Args:
        config: Crops, limits, policies.
        face: Detector, mask, identity network.
        model: Base model and image encoder.
        runtime: Where to compute.
        source_folder: Photos (path or URL), with or without `metadata.csv`; None if `config.sources` names
            all of them.
        folder: Gets the tars, `manifest.json`, `rejects.parquet`, `prepare.html`, `contact_sheet.png` and
            `journal/`.
        without: People who were forgotten: their photos are left out, wherever they still lie.

    Returns:
        The manifest. `count_in` is the number of photos, `count_out` of samples; photos with samples +
        rejects = photos.

    Raises:
        ValueError: The source, a weight file or a setting is wrong, too large a share of the photos was
            rejected, or forgetting a person was cut off in the folder.
    """
    with RayEngine(runtime) as engine:
        return prepare_with(
            engine, config=config, face=face, model=model, dtype=runtime.dtype, source_folder=source_folder,
            folder=folder, without=without,
        )  # fmt: skip


def prepare_with(
    engine: Engine,
    *,
    config: PrepareConfig,
    face: FaceConfig,
    model: "ModelConfig",
    source_folder: Path | str | None,
    folder: Path,
    dtype: str = "auto",
    without: Collection[str] = (),
) -> ShardManifest:
    """Does the same as `prepare` with another engine; `dtype` is that of CLIP and VAE."""
    started = time.monotonic()
    check_nothing_half_forgotten(folder)
    remove_halves(folder)
    library = Library(config, source_folder)
    spec = resolve(config, face, model, dtype)
    with Catalogue(folder / CATALOGUE) as catalogue:
        library.list_into(catalogue)
        leave_out_forgotten(catalogue, folder, without)
        find_people(catalogue, library, spec, folder, engine)
        leave_out_forgotten(catalogue, folder, without)  # now that unlabelled photos have their people
        journal = Journal(folder, spec.work, catalogue)
        journal.keep_valid(library)
        plan = make_plan(journal, library, config.samples_per_shard)
        if plan.photos:
            write_shards(engine.rows(plan, spec, model, library), plan, journal, config.near_duplicate_bits)
        return finish(folder, journal, spec, time.monotonic() - started, library)


def write_shards(rows: Iterable[Row], plan: Plan, journal: Journal, near_bits: int | None = None) -> None:
    """Writes each shard when its last row has come, then its journal entry."""
    doubles = Doubles(journal.catalogue, near_bits)
    with Progress("prepare", plan.photos, "photos") as progress:
        for number, (name, group) in enumerate(groupby(rows, key=lambda row: row["shard"])):
            assert name == plan.names[number], f"{name} came where {plan.names[number]} was planned"
            shard_rows: list[Row] = []
            for row in group:
                if not shard_rows or row["position"] != shard_rows[-1]["position"]:
                    progress.advance()
                shard_rows.append(doubles.judge(row))
            journal.add(write_one(journal, name, plan.shard(number), shard_rows))


def write_one(journal: Journal, name: str, photos: list[PlannedPhoto], rows: list[Row]) -> ShardEntry:
    """Writes the tar of one shard and returns its entry; samples are sorted by key."""
    order = [row["position"] for row in rows]
    assert sorted(set(order)) == list(range(len(photos))), f"{name}: rows of {len(set(order))} photos came"
    samples = sorted((_sample(row) for row in rows if row["reason"] is None), key=lambda s: s["__key__"])
    split = photos[0].record.split
    shard = write_shard(journal.folder, name, split, samples) if samples else None
    by_photo = {position: list(group) for position, group in groupby(rows, key=lambda row: row["position"])}
    return ShardEntry(
        name=name,
        split=split,
        work=journal.work,
        shard=shard,
        photos=tuple(_entry(photos[i], by_photo[i]) for i in range(len(photos))),
        counts=counts_of(json.loads(sample["meta.json"]) for sample in samples),
    )


def _sample(row: Row) -> dict[str, Any]:
    files = {field.name: row[field.name] for field in FIELDS if row[field.name] is not None}
    return {"__key__": sample_key(row), "meta.json": row["meta"].encode(), **files}


def _entry(photo: PlannedPhoto, rows: list[Row]) -> PhotoEntry:
    rejected = next((row for row in rows if row["reason"] is not None), None)
    kept = [row for row in rows if row["reason"] is None]
    return PhotoEntry(
        file=photo.record.file,
        record=photo.record.fingerprint,
        size=photo.state[0],
        mtime_ns=photo.state[1],
        sha256=rows[0]["sha256"] or "",
        masks_state=photo.masks_state,
        masks_sha256=rows[0]["masks_sha256"] or "",
        samples=tuple(sample_key(row) for row in kept),
        reason=rejected["reason"] if rejected and not kept else None,
        detail=rejected["detail"] if rejected and not kept else "",
        repeats=rejected.get("repeats", "") if rejected and not kept else "",
        picture_hash=rows[0]["picture_hash"] or "" if kept else "",
    )
