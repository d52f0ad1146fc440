"""A cache of drawn people on disk: pictures, masks, landmarks and words, drawn once, read by every part.

Files in the folder: `pictures.npy` uint8 (N, S, S, 3) RGB, `masks.npy` packed bits (N, S, S / 8),
`landmarks.npy` float32 (N, 5, 2) pixels, `facts.jsonl` (caption, details, attributes) and `about.json`.
Picture i shows person i // views.
"""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from components.core import Progress, sha256_folder, write_text_atomic
from components.portraits.world import Portrait, portrait

logger = logging.getLogger(__name__)
TRAIN_START, HELDOUT_START = 1_000_000, 2_000_000
GLASSES_SWAP = 0.12
"""Share of views in which glasses are put on or taken off, so that nobody is known by glasses alone."""
_CHUNK = 50


@dataclass(frozen=True)
class People:
    """Drawn people in memory maps; see the head of this file for shapes."""

    pictures: np.ndarray
    masks: np.ndarray
    landmarks: np.ndarray
    captions: list[str]
    details: list[tuple[str, ...]]
    attributes: list[dict[str, str | bool]]
    views: int

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def count(self) -> int:
        """Number of people."""
        return len(self) // self.views

    def mask(self, index: int) -> np.ndarray:
        """(S, S) bool: the visible skin of the face."""
        return np.unpackbits(self.masks[index], axis=-1).astype(bool)


def load_people(folder: Path, first: int, people: int, views: int, size: int, processes: int = 1) -> People:
    """Draws what is missing in the folder and opens it.

    Args:
        folder: The cache of one range of people; made if missing.
        first: Identity seed of the first person.
        people: How many people.
        views: Pictures of each.
        size: Side of a picture, pixels.
        processes: Processes that draw.

    Raises:
        ValueError: The folder holds another range of people.
    """
    about = {"first": first, "people": people, "views": views, "size": size}
    maps = _open_maps(folder, about)
    facts_path = folder / "facts.jsonl"
    done = _whole_people(facts_path, views)
    with Progress(f"draw people {first:,}", people, "people") as progress, facts_path.open("a") as facts:
        progress.advance(done)
        for chunk in _drawn(first, range(done, people), views, size, processes):
            for person, portraits in chunk:
                for view, drawn in enumerate(portraits):
                    _store(maps, person * views + view, drawn)
            for array in maps.values():
                array.flush()
            facts.writelines(_fact(drawn) for _, portraits in chunk for drawn in portraits)
            facts.flush()
            progress.advance(len(chunk))
    return _open(maps, facts_path, views)


def _open_maps(folder: Path, about: dict[str, int]) -> dict[str, np.memmap]:
    count, size = about["people"] * about["views"], about["size"]
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "pictures": ((count, size, size, 3), np.uint8),
        "masks": ((count, size, size // 8), np.uint8),
        "landmarks": ((count, 5, 2), np.float32),
    }
    record, world = folder / "about.json", sha256_folder(Path(__file__).parents[1] / "world", "*.py")[:16]
    if record.is_file():
        found = json.loads(record.read_text())
        if {key: found.get(key) for key in about} != about:
            raise ValueError(f"{folder} holds {found}, asked for {about}: delete it or choose another --work")
        if found.get("world") != world:
            logger.warning("%s was drawn by another version of the world's code", folder)
        return {name: np.lib.format.open_memmap(folder / f"{name}.npy", "r+") for name in shapes}
    folder.mkdir(parents=True, exist_ok=True)
    maps = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        for name, (shape, dtype) in shapes.items()
    }
    (folder / "facts.jsonl").unlink(missing_ok=True)
    write_text_atomic(record, json.dumps(about | {"world": world}))
    return maps


def _whole_people(path: Path, views: int) -> int:
    """Number of people all of whose facts are written; the rest of a chunk cut off by a kill is removed."""
    if not path.is_file():
        return 0
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    people = len(lines) // views
    write_text_atomic(path, "".join(lines[: people * views]))
    return people


def _drawn(
    first: int, people: range, views: int, size: int, processes: int
) -> Iterator[list[tuple[int, list[Portrait]]]]:
    chunks = [people[start : start + _CHUNK] for start in range(0, len(people), _CHUNK)]
    work = ((first, chunk, views, size) for chunk in chunks)
    if processes == 1 or len(chunks) < 2:
        yield from map(_draw_chunk, work)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_draw_chunk, work)


def _draw_chunk(work: tuple[int, range, int, int]) -> list[tuple[int, list[Portrait]]]:
    first, people, views, size = work
    cv2.setNumThreads(1)
    return [(p, [portrait(first + p, view, size, GLASSES_SWAP) for view in range(views)]) for p in people]


def _store(maps: dict[str, np.memmap], index: int, drawn: Portrait) -> None:
    maps["pictures"][index] = drawn.image_uint8
    maps["masks"][index] = np.packbits(drawn.face_mask, axis=-1)
    maps["landmarks"][index] = drawn.landmarks_xy


def _fact(drawn: Portrait) -> str:
    known = {"caption": drawn.caption, "details": drawn.details, "attributes": drawn.attributes}
    return json.dumps(known) + "\n"


def _open(maps: dict[str, np.memmap], facts_path: Path, views: int) -> People:
    facts = [json.loads(line) for line in facts_path.read_text().splitlines()]
    return People(
        **maps,
        captions=[fact["caption"] for fact in facts],
        details=[tuple(fact["details"]) for fact in facts],
        attributes=[fact["attributes"] for fact in facts],
        views=views,
    )
