"""What is already done: one entry a shard, written when its tar is whole. A kill costs one shard at most.

An entry names the photos that went in, by size, time and SHA-256, and what became of each. A later run keeps
the entries whose photos and tar are unchanged and does the rest again: new photos cost only themselves.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from components.core import ShardFile, StrictConfig, inside, sha256_file, write_text_atomic
from components.prepare.sources import PhotoRecord
from components.shards import shard_is_intact

logger = logging.getLogger(__name__)
FOLDER = "journal"


class PhotoEntry(StrictConfig):
    """What became of one photo.

    Attributes:
        file: Path below the source folder.
        record: Fingerprint of what was stated about it.
        size: Bytes, and `mtime_ns` its time of change, when it was read; -1 if it could not be read.
        sha256: Of its bytes; empty if it could not be read.
        samples: Keys of its samples.
        reason: Reject code, or None.
        detail: What was found, for people.
    """

    file: str
    record: str
    size: int
    mtime_ns: int
    sha256: str = ""
    samples: tuple[str, ...] = ()
    reason: str | None = None
    detail: str = ""


class ShardEntry(StrictConfig):
    """One shard and its photos; `shard` is None if all of them were rejected."""

    name: str
    split: str
    work: str
    shard: ShardFile | None
    photos: tuple[PhotoEntry, ...]
    licences: dict[str, int] = {}


class Journal:
    """The entries of one output folder that belong to `work`.

    Args:
        folder: Output folder.
        work: Identity of settings and weights; entries of other work are dropped with their tars.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self.folder, self.work = folder, work
        self.entries: dict[str, ShardEntry] = {}

    def keep_valid(self, records: Iterable[PhotoRecord], source: Path) -> None:
        """Loads the entries and keeps those that still hold; the others are deleted, with their tars."""
        wanted = {record.file: record.fingerprint for record in records}
        for path in sorted((self.folder / FOLDER).glob("*.json")):
            entry = ShardEntry.model_validate_json(path.read_text(encoding="utf-8"))
            why = self._fault(entry, wanted, source)
            self.entries[entry.name] = entry
            if why is not None:
                self._drop(entry.name, why)
        while orphan := self._orphan():
            self._drop(orphan, "the photo that one of its photos repeats is gone")

    def add(self, entry: ShardEntry) -> None:
        """Writes an entry; its tar must be whole by now."""
        write_text_atomic(self._path(entry.name), entry.model_dump_json(indent=1) + "\n")
        self.entries[entry.name] = entry

    def free_names(self, split: str) -> Iterable[str]:
        """Yields shard names of a split that are not taken, lowest number first."""
        taken = set(self.entries)
        number = 0
        while True:
            name = f"{split}-{number:06d}.tar"
            number += 1
            if name not in taken:
                yield name

    def photos(self) -> list[PhotoEntry]:
        """Returns all photos, in the order of shards."""
        return [photo for name in sorted(self.entries) for photo in self.entries[name].photos]

    def _drop(self, name: str, why: str) -> None:
        logger.info("%s is made again: %s", name, why)
        del self.entries[name]
        inside(self.folder, name).unlink(missing_ok=True)
        self._path(name).unlink()

    def _orphan(self) -> str | None:
        """Returns an entry with a double of a photo that no entry holds any more."""
        held = {photo.sha256 for photo in self.photos() if photo.samples}
        for name, entry in self.entries.items():
            if any(photo.reason == "duplicate" and photo.sha256 not in held for photo in entry.photos):
                return name
        return None

    def _path(self, name: str) -> Path:
        return self.folder / FOLDER / f"{Path(name).stem}.json"

    def _fault(self, entry: ShardEntry, wanted: dict[str, str], source: Path) -> str | None:
        if entry.work != self.work:
            return "settings or weights changed"
        if entry.shard is not None and not shard_is_intact(self.folder, entry.shard):
            return "the tar is missing or damaged"
        for photo in entry.photos:
            if wanted.get(photo.file) != photo.record:
                return f"{photo.file} is gone, or other things are said about it"
            if not _unchanged(photo, source):
                return f"{photo.file} changed"
        return None


def file_state(source: Path, file: str) -> tuple[int, int]:
    """Returns size and time of change of a photo, or (-1, -1) if it cannot be seen."""
    try:
        state = inside(source, file).stat()
    except (OSError, ValueError):
        return -1, -1
    return state.st_size, state.st_mtime_ns


def _unchanged(photo: PhotoEntry, source: Path) -> bool:
    size, mtime_ns = file_state(source, photo.file)
    if (size, mtime_ns) == (photo.size, photo.mtime_ns):
        return True
    # Copied or touched: the time differs, the bytes may not.
    return size == photo.size and bool(photo.sha256) and sha256_file(source / photo.file) == photo.sha256
