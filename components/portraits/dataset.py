"""Stage `portraits`: draws people into a labelled folder of photos, split by identity.

Out: `images/<person>-<view>.png`, `metadata.csv` and the record `portraits.json`. People are never shared
by splits: each split has its own range of identity seeds.
"""

import csv
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.core import (
    PhotoFolder,
    RuntimeConfig,
    fingerprint,
    track,
    write_bytes_atomic,
    write_text_atomic,
)
from components.portraits.config import PortraitsConfig

Split = Literal["train", "validation", "heldout"]
COLUMNS = (
    "file",
    "identity",
    "group",
    "gender",
    "age",
    "caption",
    "prompt",
    "split",
    "licence",
    "consent",
    "attributes",
)
LICENCE, CONSENT = "CC0-1.0 (drawn)", "not a real person"
SPLIT_STARTS: dict[Split, int] = {"train": 0, "validation": 600_000, "heldout": 800_000}
"""First identity seed of each split. The base model is trained and measured on people from 1,000,000 on."""


@dataclass(frozen=True)
class Sitting:
    """One picture to draw: who, which view, for which split, and how readily glasses are swapped."""

    split: Split
    identity_seed: int
    view_seed: int
    glasses_swap: float

    @property
    def file(self) -> str:
        """Name below the folder."""
        return f"images/{self.identity_seed:07d}-{self.view_seed:02d}.png"


def sittings(config: PortraitsConfig) -> Iterator[Sitting]:
    """Every picture of the folder, in the order of `metadata.csv`."""
    counts: dict[Split, tuple[int, int]] = {
        "train": (config.train_people, config.train_views),
        "validation": (config.validation_people, config.validation_views),
        "heldout": (config.heldout_people, config.heldout_views),
    }
    for split, (people, views) in counts.items():
        first = SPLIT_STARTS[split] + config.first_identity
        swap = config.glasses_swap if split == "train" else 0.0
        for person in range(first, first + people):
            for view in range(views):
                yield Sitting(split, person, view, swap)


def draw_people(config: PortraitsConfig, runtime: RuntimeConfig, folder: Path) -> PhotoFolder:
    """Draws the people, or returns the record of a folder that already holds exactly these.

    Args:
        config: How many people, views and pixels.
        runtime: `num_cpus` processes draw at once.
        folder: Made if missing. A picture that exists from an interrupted run of the same config is kept.

    Raises:
        ValueError: The folder holds people of another config.
    """
    mark, record_path = fingerprint("portraits", 2, config), folder / "portraits.json"
    if record_path.is_file():
        record = PhotoFolder.load(record_path)
        if record.fingerprint == mark and (folder / "metadata.csv").is_file():
            return record
    started, plan = time.monotonic(), list(sittings(config))
    _claim(folder, mark)
    rows = list(
        track(_drawn(plan, config.size, runtime.num_cpus, folder), "portraits", len(plan), "pictures")
    )
    write_text_atomic(folder / "metadata.csv", _csv(rows))
    record = PhotoFolder(
        fingerprint=mark,
        seconds=time.monotonic() - started,
        count_in=len(plan),
        count_out=len(rows),
        folder=str(folder),
        people={split: len({s.identity_seed for s in plan if s.split == split}) for split in SPLIT_STARTS},
    )
    record.save(record_path)
    return record


def _claim(folder: Path, mark: str) -> None:
    """Marks the folder as being drawn by this config, so that pictures of two configs never mix."""
    claim = folder / ".drawing"
    if claim.is_file() and claim.read_text() != mark:
        raise ValueError(
            f"{folder} holds people drawn with other settings: choose an empty folder, or delete it"
        )
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_text_atomic(claim, mark)


def _drawn(plan: list[Sitting], size: int, cpus: int | None, folder: Path) -> Iterator[dict[str, str]]:
    work = ((sitting, size, folder) for sitting in plan)
    if cpus == 1 or len(plan) < 100:
        yield from map(_draw, work)
        return
    with ProcessPoolExecutor(cpus) as pool:
        yield from pool.map(_draw, work, chunksize=16)


def _draw(work: tuple[Sitting, int, Path]) -> dict[str, str]:
    import cv2

    from components.portraits.world import portrait

    sitting, size, folder = work
    cv2.setNumThreads(1)
    drawn = portrait(sitting.identity_seed, sitting.view_seed, size, sitting.glasses_swap)
    if not (folder / sitting.file).is_file():
        encoded = cv2.imencode(".png", drawn.image_uint8[..., ::-1])[1]  # OpenCV wants BGR
        write_bytes_atomic(folder / sitting.file, encoded.tobytes())
    traits = drawn.attributes
    return {
        "file": sitting.file,
        "identity": f"{sitting.identity_seed:07d}",
        "group": str(traits["group"]),
        "gender": str(traits["gender"]),
        "age": str(traits["age"]),
        "caption": drawn.caption,
        "prompt": drawn.prompt,
        "split": sitting.split,
        "licence": LICENCE,
        "consent": CONSENT,
        "attributes": json.dumps(traits),
    }


def _csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
