"""Photos -> shards, manifest, rejects and contact sheet, as one Ray Dataset.

    plan (driver) -> slices -> FaceStage actors -> EncodeStage actors -> one shard at a time (driver)

A shard is a fixed group of photos of one split, a slice a fixed part of a shard, and every network call stays
within a slice: so a run that was killed and continued, or had more workers, writes the same bytes as one that
was not. Only rows in flight are in memory.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from components.core import Progress, RuntimeConfig, ShardManifest, ray_session
from components.face import FaceConfig
from components.prepare.config import PrepareConfig
from components.prepare.doubles import Doubles
from components.prepare.journal import Journal, PhotoEntry, ShardEntry
from components.prepare.outputs import counts_of, finish
from components.prepare.people import with_people
from components.prepare.sources import Library, PhotoRecord
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
    source_folder: Path | None,
    folder: Path,
) -> ShardManifest:
    """Turns photos into a shard set; does again only what is not done, or no longer holds.

    Args:
        config: Crops, limits, policies.
        face: Detector, mask, identity network.
        model: Base model and image encoder.
        runtime: Where to compute.
        source_folder: Photos, with or without `metadata.csv`; None if `config.sources` names all of them.
        folder: Gets the tars, `manifest.json`, `rejects.parquet`, `prepare.html`, `contact_sheet.png` and
            `journal/`.

    Returns:
        The manifest. `count_in` is the number of photos, `count_out` of samples; photos with samples +
        rejects = photos.

    Raises:
        ValueError: The source, a weight file or a setting is wrong, or too large a share of the photos was
            rejected.
    """
    started = time.monotonic()
    library = Library(config, source_folder)
    spec = resolve(config, face, model, runtime.dtype)
    with ExitStack() as stack:
        start_ray = partial(_start_ray, stack, runtime)
        records = with_people(library.records(), library, spec, folder, start_ray)
        journal = Journal(folder, spec.work)
        journal.keep_valid(records, library)
        plan = make_plan(records, journal, config.samples_per_shard)
        if plan:
            start_ray()
            rows = in_order(ray_dataset(plan, spec, model, library, encode_device(runtime)))
            write_shards(rows, plan, journal, library, config.near_duplicate_bits)
    return finish(folder, journal, spec, time.monotonic() - started, library)


def _start_ray(stack: ExitStack, runtime: RuntimeConfig) -> None:
    """Starts Ray for the rest of the block, unless it is running: work that is done needs none."""
    stack.enter_context(ray_session(runtime))


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
                    "masks": list(photo.masks),
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
    plan: Plan, spec: PrepareSpec, model: "ModelConfig", library: Library, device: str
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
        fn_constructor_kwargs={"spec": spec, "library": library},
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=face_workers),
        num_cpus=share,
        num_gpus=config.face_gpus,
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


def write_shards(
    rows: Iterable[Row], plan: Plan, journal: Journal, library: Library, near_bits: int | None = None
) -> None:
    """Writes each shard when its last row has come, then its journal entry."""
    doubles = Doubles(journal.photos(), near_bits)
    with Progress("prepare", sum(map(len, plan.values())), "photos") as progress:
        for name, group in groupby(rows, key=lambda row: row["shard"]):
            states = {photo.file: library.state(photo.file) for photo in plan[name]}
            shard_rows: list[Row] = []
            for row in group:
                if not shard_rows or row["position"] != shard_rows[-1]["position"]:
                    progress.advance()
                shard_rows.append(doubles.judge(row))
            journal.add(write_one(journal, name, plan[name], shard_rows, states))


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
        counts=counts_of(json.loads(sample["meta.json"]) for sample in samples),
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
        repeats=rejected.get("repeats", "") if rejected and not kept else "",
        picture_hash=rows[0]["picture_hash"] or "" if kept else "",
    )
