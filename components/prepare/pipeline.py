"""Photos -> shards, manifest, rejects and contact sheet, as one Ray Dataset.

    plan (driver) -> slices -> FaceStage actors -> EncodeStage actors -> one shard at a time (driver)

A shard is a fixed group of photos of one split, a slice a fixed part of a shard, and every network call stays
within a slice: so a run that was killed and continued, or had more workers, writes the same bytes as one that
was not. Only rows in flight are in memory.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from components.core import Progress, RuntimeConfig, ShardManifest, ray_session
from components.face import FaceConfig
from components.prepare.config import PrepareConfig
from components.prepare.journal import Journal, PhotoEntry, ShardEntry, file_state
from components.prepare.outputs import finish
from components.prepare.sources import PhotoRecord, read_folder
from components.prepare.spec import PrepareSpec, resolve
from components.prepare.stages import PHOTO_SCHEMA, EncodeStage, FaceStage, Row, sample_key
from components.shards import FIELDS, write_shard

if TYPE_CHECKING:
    import ray.data

    from components.model import ModelConfig

logger = logging.getLogger(__name__)
Plan = dict[str, list[PhotoRecord]]  # shard name -> its photos


def prepare(
    *,
    config: PrepareConfig,
    face: FaceConfig,
    model: "ModelConfig",
    runtime: RuntimeConfig,
    source_folder: Path,
    folder: Path,
) -> ShardManifest:
    """Turns a folder of photos into a shard set; does again only what is not done, or no longer holds.

    Args:
        config: Crops, limits, policies.
        face: Detector, mask, identity network.
        model: Base model and image encoder.
        runtime: Where to compute.
        source_folder: Photos, with or without `metadata.csv`; see `sources`.
        folder: Gets the tars, `manifest.json`, `rejects.parquet`, `contact_sheet.png` and `journal/`.

    Returns:
        The manifest. `count_in` is the number of photos, `count_out` of samples; photos with samples +
        rejects = photos.

    Raises:
        ValueError: The source, a weight file or a setting is wrong, or too large a share of the photos was
            rejected.
    """
    started = time.monotonic()
    records = read_folder(source_folder, config)
    spec = resolve(config, face, model, runtime.dtype)
    journal = Journal(folder, spec.work)
    journal.keep_valid(records, source_folder)
    plan = make_plan(records, journal, config.samples_per_shard)
    if plan:
        with ray_session(runtime):
            device = encode_device(runtime)
            rows = in_order(ray_dataset(plan, spec, model, source_folder, device))
            write_shards(rows, plan, journal, source_folder)
    return finish(folder, journal, spec, time.monotonic() - started)


def make_plan(records: list[PhotoRecord], journal: Journal, photos_per_shard: int) -> Plan:
    """Groups the photos that are not done into shards of one split each, in the order of the records."""
    done = {photo.file for photo in journal.photos()}
    plan: Plan = {}
    for split, group in groupby((r for r in records if r.file not in done), key=lambda record: record.split):
        photos, names = list(group), iter(journal.free_names(split))
        for start in range(0, len(photos), photos_per_shard):
            plan[next(names)] = photos[start : start + photos_per_shard]
    return plan


def slices(plan: Plan, size: int) -> Iterator[pa.Table]:
    """Yields tables of `PHOTO_SCHEMA` of at most `size` photos of one shard."""
    for name, photos in plan.items():
        for start in range(0, len(photos), size):
            rows = [
                {
                    "shard": name,
                    "position": start + i,
                    "file": photo.file,
                    "person": photo.person,
                    "split": photo.split,
                    "about": json.dumps(photo.about),
                }
                for i, photo in enumerate(photos[start : start + size])
            ]
            yield pa.Table.from_pylist(rows, schema=PHOTO_SCHEMA)


def encode_device(runtime: RuntimeConfig) -> str:
    """Returns "cpu" or "cuda": what the cluster has, not what this process sees. Needs a running Ray."""
    if runtime.device != "auto":
        return runtime.device.split(":")[0]
    import ray

    return "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"


def ray_dataset(
    plan: Plan, spec: PrepareSpec, model: "ModelConfig", source: Path, device: str
) -> "ray.data.Dataset":
    """Describes the work as one Dataset; nothing runs yet. Blocks are slices, and keep their order."""
    import ray
    from ray.data import ActorPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    cpus, gpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("CPU", "GPU"))
    config, on_gpu = spec.prepare, device != "cpu"
    face_workers = config.face_workers or max(1, cpus if on_gpu else cpus // 2)
    encode_workers = config.encode_workers or (max(1, gpus) if on_gpu else max(1, cpus // 2))
    share = min(1.0, cpus / (face_workers + encode_workers))
    photos = ray.data.from_arrow(list(slices(plan, config.batch_size)))
    faces = photos.map_batches(
        FaceStage,
        fn_constructor_kwargs={"spec": spec, "source": source.absolute()},
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=face_workers),
        num_cpus=share,
    )
    samples = faces.map_batches(
        EncodeStage,
        fn_constructor_kwargs={"spec": spec, "model": model, "device": device},
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=encode_workers),
        num_cpus=share,
        num_gpus=1 if on_gpu else 0,
    )
    samples.context.execution_options.preserve_order = True
    samples.context.enable_progress_bars = False
    return samples


def in_order(dataset: "ray.data.Dataset") -> Iterator[Row]:
    """Yields the rows of the executed Dataset, holding one block at a time."""
    tables: Iterable[Any] = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    for table in tables:
        yield from table.to_pylist()


def write_shards(rows: Iterable[Row], plan: Plan, journal: Journal, source: Path) -> None:
    """Writes each shard when its last row has come, then its journal entry."""
    first_file = {photo.sha256: photo.file for photo in journal.photos() if photo.samples}
    with Progress("prepare", sum(map(len, plan.values())), "photos") as progress:
        for name, group in groupby(rows, key=lambda row: row["shard"]):
            shard_rows = []
            for row in group:
                shard_rows.append(without_double(row, first_file))
                if row["face"] == 0:
                    progress.advance()
            states = {photo.file: file_state(source, photo.file) for photo in plan[name]}
            journal.add(write_one(journal, name, plan[name], shard_rows, states))


def without_double(row: Row, first_file: dict[str, str]) -> Row:
    """Turns a sample of a photo whose very bytes came before under another name into a reject."""
    if row["reason"] is not None:
        return row
    first = first_file.setdefault(row["sha256"], row["file"])
    if first == row["file"]:
        return row
    return row | {"reason": "duplicate", "detail": f"the same bytes as {first}"}


def write_one(
    journal: Journal,
    name: str,
    photos: list[PhotoRecord],
    rows: list[Row],
    states: dict[str, tuple[int, int]],
) -> ShardEntry:
    """Writes the tar of one shard and returns its entry; samples are sorted by key."""
    order = [row["position"] for row in rows]
    assert sorted(set(order)) == list(range(len(photos))), f"{name}: rows of {len(set(order))} photos came"
    samples = sorted((_sample(row) for row in rows if row["reason"] is None), key=lambda s: s["__key__"])
    split = photos[0].split
    shard = write_shard(journal.folder, name, split, samples) if samples else None
    by_photo = {position: list(group) for position, group in groupby(rows, key=lambda row: row["position"])}
    return ShardEntry(
        name=name,
        split=split,
        work=journal.work,
        shard=shard,
        photos=tuple(_entry(photos[i], by_photo[i], states[photos[i].file]) for i in range(len(photos))),
        licences=dict(Counter(json.loads(sample["meta.json"])["licence"] for sample in samples)),
    )


def _sample(row: Row) -> dict[str, Any]:
    files = {field.name: row[field.name] for field in FIELDS if row[field.name] is not None}
    return {"__key__": sample_key(row), "meta.json": row["meta"].encode(), **files}


def _entry(photo: PhotoRecord, rows: list[Row], state: tuple[int, int]) -> PhotoEntry:
    rejected = next((row for row in rows if row["reason"] is not None), None)
    kept = [row for row in rows if row["reason"] is None]
    return PhotoEntry(
        file=photo.file,
        record=photo.fingerprint,
        size=state[0],
        mtime_ns=state[1],
        sha256=rows[0]["sha256"] or "",
        samples=tuple(sample_key(row) for row in kept),
        reason=rejected["reason"] if rejected and not kept else None,
        detail=rejected["detail"] if rejected and not kept else "",
    )
