"""What is to be done: the photos that no finished shard holds, in shards of one split each.

The plan is a table of the catalogue. Memory holds a name and a number a shard.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.prepare.journal import Journal, masks_state
from components.prepare.sources import SPLITS, Catalogue, Library, PhotoRecord
from components.prepare.stages import PHOTO_SCHEMA

POLL_S = 0.25


@dataclass(frozen=True)
class PlannedPhoto:
    """A photo of a planned shard, with size and time of change of it and its masks before it is read."""

    record: PhotoRecord
    state: tuple[int, int]
    masks_state: str


@dataclass(frozen=True)
class Plan:
    """Shards to make.

    Attributes:
        catalogue: Holds the photos of each.
        names: Name of each shard, by number.
        photos: Photos in all.
    """

    catalogue: Catalogue
    names: tuple[str, ...]
    photos: int

    def shard(self, number: int) -> list[PlannedPhoto]:
        """Returns the photos of a shard, in their order."""
        return [PlannedPhoto(*row) for row in self.catalogue.planned(number)]

    def slices(self, size: int) -> Iterator[pa.Table]:
        """Yields tables of `PHOTO_SCHEMA` of at most `size` photos of one shard."""
        for number, name in enumerate(self.names):
            yield from shard_slices(self.catalogue, number, name, size)


def make_plan(journal: Journal, library: Library, photos_per_shard: int) -> Plan:
    """Groups the photos that are not done into shards of one split each, in the order of their names."""
    db, names, count = journal.catalogue.db, [], 0
    for split, word in enumerate(SPLITS):
        free = iter(journal.free_names(word))
        todo = journal.catalogue.records("split = ? AND file NOT IN (SELECT file FROM done)", (split,))
        position = photos_per_shard
        for record in todo:
            if position == photos_per_shard:
                names.append(next(free))
                position = 0
            row = (len(names) - 1, position, record.file, *library.state(record.file))
            db.execute("INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?)", (*row, masks_state(record, library)))
            position, count = position + 1, count + 1
    db.commit()
    return Plan(journal.catalogue, tuple(names), count)


def shard_slices(catalogue: Catalogue, number: int, name: str, size: int) -> Iterator[pa.Table]:
    """Yields the photos of one planned shard as tables of `PHOTO_SCHEMA` of at most `size` photos."""
    rows = [_row(name, i, photo[0]) for i, photo in enumerate(catalogue.planned(number))]
    for start in range(0, len(rows), size):
        yield pa.Table.from_pylist(rows[start : start + size], schema=PHOTO_SCHEMA)


def read_shard(path: Path, number: int, name: str, size: int, after: str | None) -> Iterator[pa.Table]:
    """Does the same in another process of the same machine, from the catalogue's file.

    Args:
        path: The catalogue.
        number: Of the shard.
        name: Of the shard.
        size: Photos of a slice.
        after: Shard that must be finished before: so the first stage never runs far ahead of the last one,
            and what is in flight does not grow with the number of photos.
    """
    catalogue = Catalogue.open(path)
    try:
        while after and catalogue.one("SELECT 1 FROM done WHERE shard = ? LIMIT 1", after) is None:
            time.sleep(POLL_S)
        yield from shard_slices(catalogue, number, name, size)
    finally:
        catalogue.db.close()


def _row(name: str, position: int, photo: PhotoRecord) -> dict[str, Any]:
    return {
        "shard": name,
        "position": position,
        "file": photo.file,
        "person": photo.person,
        "split": photo.split,
        "about": json.dumps(photo.about),
        "masks": list(photo.masks),
    }
