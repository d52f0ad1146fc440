"""What is already done: one entry a shard, written when its tar is whole. A kill costs one shard at most.

An entry names the photos that went in, by size, time and SHA-256, and what became of each. A later run keeps
the entries whose photos and tar are unchanged and does the rest again: new photos cost only themselves.
"""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

from components.core import ShardFile, StrictConfig, inside, write_text_atomic
from components.prepare.sources import Library, OutsideError, PhotoRecord
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
        repeats: File that a rejected double repeats.
        picture_hash: Perceptual hash, where near duplicates are looked for.
    """

    file: str
    record: str
    size: int
    mtime_ns: int
    sha256: str = ""
    samples: tuple[str, ...] = ()
    reason: str | None = None
    detail: str = ""
    repeats: str = ""
    picture_hash: str = ""


class ShardEntry(StrictConfig):
    """One shard and its photos; `shard` is None if all of them were rejected.

    Attributes:
        counts: Samples by licence, source, group and gender, and size of the face; see `counts_of`.
    """

    name: str
    split: str
    work: str
    shard: ShardFile | None
    photos: tuple[PhotoEntry, ...]
    counts: dict[str, dict[str, int]] = {}


class Journal:
    """The entries of one output folder that belong to `work`.

    Args:
        folder: Output folder.
        work: Identity of settings and weights; entries of other work are dropped with their tars.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self.folder, self.work = folder, work
        self.entries: dict[str, ShardEntry] = {}

    def keep_valid(self, records: Iterable[PhotoRecord], library: Library) -> None:
        """Loads the entries and keeps those that still hold; the others are deleted, with their tars."""
        wanted = {record.file: record.fingerprint for record in records}
        for path in sorted((self.folder / FOLDER).glob("*.json")):
            entry = ShardEntry.model_validate_json(path.read_text(encoding="utf-8"))
            why = self._fault(entry, wanted, library)
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
        kept = [photo for photo in self.photos() if photo.samples]
        held, files = {photo.sha256 for photo in kept}, {photo.file for photo in kept}
        for name, entry in self.entries.items():
            for photo in entry.photos:
                if photo.reason == "duplicate" and photo.sha256 not in held:
                    return name
                if photo.reason == "near_duplicate" and photo.repeats not in files:
                    return name
        return None

    def _path(self, name: str) -> Path:
        return self.folder / FOLDER / f"{Path(name).stem}.json"

    def _fault(self, entry: ShardEntry, wanted: dict[str, str], library: Library) -> str | None:
        if entry.work != self.work:
            return "settings or weights changed"
        if entry.shard is not None and not shard_is_intact(self.folder, entry.shard):
            return "the tar is missing or damaged"
        for photo in entry.photos:
            if wanted.get(photo.file) != photo.record:
                return f"{photo.file} is gone, or other things are said about it"
            if photo.reason == "unreadable_file":
                return f"{photo.file} could not be read then"
            if not _unchanged(photo, library):
                return f"{photo.file} changed"
        return None


def _unchanged(photo: PhotoEntry, library: Library) -> bool:
    size, mtime_ns = library.state(photo.file)
    if (size, mtime_ns) == (photo.size, photo.mtime_ns):
        return True
    if size != photo.size or not photo.sha256:
        return False
    try:  # copied or touched: the time differs, the bytes may not
        return hashlib.sha256(library.read(photo.file)).hexdigest() == photo.sha256
    except (OSError, OutsideError):
        return False
