"""What a run leaves beside the shards, from the journal: rejects, contact sheet, report, manifest."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from components.core import ShardManifest, atomic_path, fingerprint
from components.prepare.journal import Journal
from components.prepare.report import REPORT, write_report
from components.prepare.sources import SPLITS, Library
from components.prepare.spec import PrepareSpec
from components.shards import Sample, load_split

MANIFEST, REJECTS, CONTACT_SHEET = "manifest.json", "rejects.parquet", "contact_sheet.png"
REJECT_SCHEMA = pa.schema([(name, pa.string()) for name in ("file", "reason", "detail")])
REJECT_ROWS = 10_000  # written at once
CELL = 128  # pixels of one picture on the contact sheet
ACROSS = 8  # samples side by side


def finish(
    folder: Path, journal: Journal, spec: PrepareSpec, seconds: float, library: Library
) -> ShardManifest:
    """Writes rejects, contact sheet, report and manifest; if nothing changed, returns the earlier manifest.

    Raises:
        ValueError: Too large a share of the photos was rejected, or no photo gave a sample. The rejects are
            written.
    """
    manifest = _manifest(folder, journal, spec, seconds)
    earlier = _earlier(folder, manifest)
    if earlier is not None:
        return earlier
    write_rejects(folder / REJECTS, journal.rejects())
    write_report(folder / REPORT, manifest, journal, spec, library)
    _check_share(manifest, spec, folder)
    if manifest.contact_sheet is not None:
        write_contact_sheet(folder / CONTACT_SHEET, manifest, spec.prepare.contact_sheet_samples)
    manifest.save(folder / MANIFEST)
    return manifest


def write_rejects(path: Path, rejects: Iterator[dict[str, str]]) -> None:
    """Writes one row a rejected photo: file, reason, detail."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, REJECT_SCHEMA) as writer:
        while rows := list(islice(rejects, REJECT_ROWS)):
            writer.write_table(pa.Table.from_pylist(rows, schema=REJECT_SCHEMA))


def write_contact_sheet(path: Path, manifest: ShardManifest, samples: int) -> None:
    """Draws identity crops, masks and targets of the first samples of each split, one below the other."""
    shown: list[Sample] = []
    for split in SPLITS:
        if manifest.samples.get(split) and len(shown) < samples:
            shown += islice(_first(manifest, split), samples - len(shown))
    columns = [np.vstack([_cell(s[name]) for name in ("photo.png", "mask.png", "target.png")]) for s in shown]
    columns += [np.zeros_like(columns[0])] * (-len(columns) % min(ACROSS, len(columns)))
    rows = [np.hstack(columns[i : i + ACROSS]) for i in range(0, len(columns), ACROSS)]
    with atomic_path(path) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary, "PNG")


def counts_of(metas: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Returns what the report needs of a shard: kind of count -> value -> samples."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("licence", "source", "group", "face_px")}
    for meta in metas:
        x0, y0, x1, y1 = meta["bbox_xyxy"]
        octave = max(0, int(np.log2(max(min(x1 - x0, y1 - y0), 1.0))))
        counts["licence"][meta["licence"]] += 1
        counts["source"][meta["source"]] += 1
        counts["group"][f"{meta.get('group', '')}\t{meta.get('gender', '')}"] += 1
        counts["face_px"][str(2**octave)] += 1
    return {name: dict(sorted(counter.items())) for name, counter in counts.items()}


def _first(manifest: ShardManifest, split: str) -> list[Sample]:
    """The samples of the first shard of a split: enough to look at, never the whole set."""
    first = next(s for s in manifest.shards if s.split == split and s.samples)
    return load_split(
        manifest.model_copy(update={"shards": (first,)}), split, ("photo.png", "mask.png", "target.png")
    )


def _cell(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).convert("RGB").resize((CELL, CELL), Image.Resampling.BOX))


def _manifest(folder: Path, journal: Journal, spec: PrepareSpec, seconds: float) -> ShardManifest:
    entries = [journal.entries[name] for name in sorted(journal.entries)]
    shards = tuple(entry.shard for entry in entries if entry.shard is not None)
    by_split = {split: sum(s.samples for s in shards if s.split == split) for split in SPLITS}
    licences: Counter[str] = Counter()
    for entry in entries:
        licences.update(entry.counts.get("licence", {}))
    rejects = journal.rejects_by_reason()
    with_sheet = spec.prepare.contact_sheet_samples and shards
    return ShardManifest(
        fingerprint=fingerprint(spec.work, [shard.sha256 for shard in shards]),
        seconds=seconds,
        count_in=journal.count(),
        count_out=sum(by_split.values()),
        folder=str(folder),
        shards=shards,
        samples=by_split,
        rejects=sum(rejects.values()),
        rejects_file=str(folder / REJECTS),
        rejects_by_reason=rejects,
        feature_shape=spec.feature_shape,
        latent_shape=spec.latent_shape,
        licences=dict(sorted(licences.items())),
        contact_sheet=str(folder / CONTACT_SHEET) if with_sheet else None,
    )


def _earlier(folder: Path, manifest: ShardManifest) -> ShardManifest | None:
    """Returns the manifest on disk if it says the same, and what it points to is there."""
    path = folder / MANIFEST
    try:
        earlier = ShardManifest.load(path)
    except ValueError:
        return None
    pointed = [
        earlier.rejects_file,
        str(folder / REPORT),
        *([earlier.contact_sheet] if earlier.contact_sheet else []),
    ]
    # The caller may have put its own fingerprint and clock on the record.
    outside = {"seconds", "fingerprint"}
    same = earlier.model_dump(exclude=outside) == manifest.model_dump(exclude=outside)
    return earlier if same and all(Path(file).is_file() for file in pointed) else None


def _check_share(manifest: ShardManifest, spec: PrepareSpec, folder: Path) -> None:
    share = manifest.rejects / manifest.count_in
    reasons = ", ".join(f"{reason} {count}" for reason, count in manifest.rejects_by_reason.items())
    if share > spec.prepare.max_reject_share or not manifest.count_out:
        raise ValueError(
            f"{manifest.rejects} of {manifest.count_in} photos were rejected ({reasons}); at most"
            f" {spec.prepare.max_reject_share:.0%} may be (prepare.max_reject_share). See {folder / REJECTS}"
        )
