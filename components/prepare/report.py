"""`prepare.html`: what came in, what was kept, what was rejected and why; a page that needs no network."""

import base64
import io
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.core import ShardManifest, write_text_atomic
from components.face import PhotoError, decode_photo
from components.prepare.journal import Journal
from components.prepare.sources import SPLITS, Library
from components.prepare.spec import PrepareSpec
from components.shards import load_split

REPORT = "prepare.html"
PICTURES = ("photo.png", "mask.png", "target.png")
EXAMPLES = 6  # rejects shown for each reason
SAMPLES = 12  # samples shown for each split
SIDE = 128  # pixels of a thumbnail
MAX_BYTES = 32 * 2**20  # larger rejects are not opened for a thumbnail


def write_report(
    path: Path,
    manifest: ShardManifest,
    journal: Journal,
    spec: PrepareSpec,
    library: Library,
) -> None:
    """Writes the page.

    Args:
        path: The HTML file.
        manifest: Of the shard set.
        journal: Holds what is counted by shard, and the rejects.
        spec: The resolved settings.
        library: Reads the few rejects that are shown.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    counts = total_counts(journal)
    page = environment.get_template("report.html.j2").render(
        manifest=manifest,
        spec=spec,
        balance=balance_table(counts["group"]),
        sizes=sorted(((int(px), n) for px, n in counts["face_px"].items()), key=lambda pair: pair[0]),
        sources=sorted(counts["source"].items()),
        reasons=reject_rows(journal, library, spec.prepare.max_pixels),
        samples={split: sample_rows(manifest, split) for split in SPLITS if manifest.samples.get(split)},
        options=spec.prepare.model_dump(mode="json", exclude={"sources"}),
    )
    write_text_atomic(path, page)


def total_counts(journal: Journal) -> defaultdict[str, Counter[str]]:
    """Returns kind of count -> value -> samples, over all shards."""
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for entry in journal.entries.values():
        for name, counts in entry.counts.items():
            totals[name].update(counts)
    return totals


def balance_table(counts: Counter[str]) -> dict[str, Any]:
    """Returns rows (group, count by gender, sum) and the genders, from counts by "group<tab>gender"."""
    cells = {tuple(key.split("\t")): count for key, count in counts.items()}
    genders = sorted({gender for _, gender in cells})
    groups = sorted({group for group, _ in cells})
    rows = [(group, [cells.get((group, gender), 0) for gender in genders]) for group in groups]
    return {"genders": genders, "rows": rows, "most": max([1, *cells.values()])}


def reject_rows(journal: Journal, library: Library, max_pixels: int) -> list[dict[str, Any]]:
    """Returns one row a reason, the most frequent first, with examples."""
    return [
        {
            "reason": reason,
            "count": count,
            "examples": [
                {
                    "file": photo["file"],
                    "detail": photo["detail"],
                    "picture": thumbnail(library, photo["file"], max_pixels),
                    "repeats": thumbnail(library, photo["repeats"], max_pixels) if photo["repeats"] else None,
                }
                for photo in journal.rejects(reason, EXAMPLES)
            ],
        }
        for reason, count in sorted(journal.rejects_by_reason().items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def thumbnail(library: Library, file: str, max_pixels: int) -> str | None:
    """Returns a photo as a data URI, None where it gives no picture."""
    try:
        if library.size(file) > MAX_BYTES:
            return None
        return data_uri(decode_photo(library.read(file), max_pixels))
    except (PhotoError, OSError, ValueError):
        return None


def sample_rows(manifest: ShardManifest, split: str) -> list[dict[str, Any]]:
    """Returns pictures and facts of the first samples of a split's first shard."""
    first = next(shard for shard in manifest.shards if shard.split == split and shard.samples)
    samples = load_split(manifest.model_copy(update={"shards": (first,)}), split, PICTURES)
    return [
        {
            "pictures": [data_uri(sample[name]) for name in PICTURES],
            "person": sample["meta.json"]["person"],
            "file": sample["meta.json"]["file"],
        }
        for sample in islice(samples, SAMPLES)
    ]


def data_uri(picture_uint8: np.ndarray) -> str:
    """Returns a picture as a small JPEG data URI."""
    picture, buffer = Image.fromarray(picture_uint8).convert("RGB"), io.BytesIO()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
