"""What is already done: one entry a shard, written when its tar is whole. A kill costs one shard at most.

An entry names the photos that went in, by size, time and SHA-256, and what became of each. A later run keeps
the entries whose photos, masks and tar are unchanged and does the rest again: new photos cost only
themselves. Entries stay on disk; memory holds a summary of each, and the catalogue answers questions about
all photos.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.core import ShardFile, StrictConfig, fingerprint, inside, write_text_atomic
from components.prepare.sources import Catalogue, Library, OutsideError, PhotoRecord, digest_of
from components.shards import shard_is_intact

logger = logging.getLogger(__name__)
FOLDER = "journal"


class PhotoEntry(StrictConfig):
    """What became of one photo.

    Attributes:
        file: Path below the source folder.
        record: Fingerprint of what was stated about it.
        size: Bytes, and `mtime_ns` its time of change, before it was read; -1 if it could not be seen.
        sha256: Of its bytes; empty if it could not be read.
        masks_state: Identity of sizes and times of change of the set's own masks, before they were read;
            empty if it has none.
        masks_sha256: Of the bytes of those masks; empty if one could not be read.
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
    masks_state: str = ""
    masks_sha256: str = ""
    samples: tuple[str, ...] = ()
    reason: str | None = None
    detail: str = ""
    repeats: str = ""
    picture_hash: str = ""


class ShardSummary(StrictConfig):
    """One shard without its photos; `shard` is None if all of them were rejected.

    Attributes:
        counts: Samples by licence, source, group and gender, and size of the face; see `counts_of`.
    """

    name: str
    split: str
    work: str
    shard: ShardFile | None
    counts: dict[str, dict[str, int]] = {}


class ShardEntry(ShardSummary):
    """One shard and its photos."""

    photos: tuple[PhotoEntry, ...]


class Journal:
    """The entries of one output folder that belong to `work`.

    Args:
        folder: Output folder.
        work: Identity of settings and weights; entries of other work are dropped with their tars.
        catalogue: The photos of this run; learns what became of them.
    """

    def __init__(self, folder: Path, work: str, catalogue: Catalogue) -> None:
        self.folder, self.work, self.catalogue = folder, work, catalogue
        self.entries: dict[str, ShardSummary] = {}

    def keep_valid(self, library: Library) -> None:
        """Reads the entries and keeps those that still hold; the others are deleted, with their tars."""
        for path in sorted((self.folder / FOLDER).glob("*.json")):
            entry = ShardEntry.model_validate_json(path.read_text(encoding="utf-8"))
            why = self._fault(entry, library)
            self._remember(entry)
            if why is not None:
                self._drop(entry.name, why)
        while orphan := self._orphan():
            self._drop(orphan, "the photo that one of its photos repeats is gone")
        self.catalogue.db.commit()

    def add(self, entry: ShardEntry) -> None:
        """Writes an entry; its tar must be whole by now."""
        write_text_atomic(self._path(entry.name), entry.model_dump_json(indent=1) + "\n")
        self._remember(entry)
        self.catalogue.db.commit()

    def free_names(self, split: str) -> Iterable[str]:
        """Yields shard names of a split that are not taken, lowest number first."""
        taken = set(self.entries)
        number = 0
        while True:
            name = f"{split}-{number:06d}.tar"
            number += 1
            if name not in taken:
                yield name

    def count(self) -> int:
        """Returns the number of photos of all entries."""
        return int(self.catalogue.one("SELECT COUNT(*) FROM done"))

    def rejects_by_reason(self) -> dict[str, int]:
        """Returns reason -> photos, by reason."""
        rows = self.catalogue.db.execute(
            "SELECT reason, COUNT(*) FROM done WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"
        )
        return dict(rows.fetchall())

    def rejects(self, reason: str | None = None, most: int = -1) -> Iterator[dict[str, str]]:
        """Yields file, reason, detail and repeats of rejected photos by file, of one reason or of all."""
        condition = "reason = ?" if reason else "reason IS NOT NULL"
        rows = self.catalogue.db.execute(
            f"SELECT file, reason, detail, repeats FROM done WHERE {condition} ORDER BY file LIMIT ?",
            (*([reason] if reason else []), most),
        )
        return (dict(zip(("file", "reason", "detail", "repeats"), row, strict=True)) for row in rows)

    def _remember(self, entry: ShardEntry) -> None:
        self.entries[entry.name] = ShardSummary.model_validate(entry.model_dump(exclude={"photos"}))
        self.catalogue.db.executemany(
            "INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    p.file,
                    entry.name,
                    i,
                    len(p.samples),
                    p.sha256,
                    p.reason,
                    p.detail,
                    p.repeats,
                    p.picture_hash,
                )
                for i, p in enumerate(entry.photos)
                if not self.catalogue.is_left_out(p.file)
            ),
        )

    def _drop(self, name: str, why: str) -> None:
        logger.info("%s is made again: %s", name, why)
        del self.entries[name]
        self.catalogue.db.execute("DELETE FROM done WHERE shard = ?", (name,))
        inside(self.folder, name).unlink(missing_ok=True)
        self._path(name).unlink()

    def _orphan(self) -> str | None:
        """Returns an entry with a double of a photo that no entry holds any more."""
        return self.catalogue.one(
            "SELECT shard FROM done d WHERE reason IN ('duplicate', 'near_duplicate') AND NOT EXISTS"
            " (SELECT 1 FROM done k WHERE k.file = d.repeats AND k.samples > 0) LIMIT 1"
        )

    def _path(self, name: str) -> Path:
        return self.folder / FOLDER / f"{Path(name).stem}.json"

    def _fault(self, entry: ShardEntry, library: Library) -> str | None:
        if entry.work != self.work:
            return "settings or weights changed"
        if entry.shard is not None and not shard_is_intact(self.folder, entry.shard):
            return "the tar is missing or damaged"
        for photo in entry.photos:
            if not photo.samples and self.catalogue.is_left_out(photo.file):
                continue  # of somebody who was forgotten, and nothing of it is in the tar
            record = self.catalogue.record(photo.file)
            if record is None or record.fingerprint != photo.record:
                return f"{photo.file} is gone, or other things are said about it"
            if photo.reason == "unreadable_file":
                return f"{photo.file} could not be read then"
            if not _unchanged(photo, library):
                return f"{photo.file} changed"
            if not _masks_unchanged(photo, record, library):
                return f"a mask of {photo.file} changed"
        return None


def masks_state(record: PhotoRecord, library: Library) -> str:
    """Returns the identity of sizes and times of change of a photo's own masks, "" where it has none."""
    return fingerprint([library.state(file) for file in record.masks]) if record.masks else ""


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


def _masks_unchanged(photo: PhotoEntry, record: PhotoRecord, library: Library) -> bool:
    if masks_state(record, library) == photo.masks_state:
        return True
    try:
        return digest_of(library.read(file) for file in record.masks) == photo.masks_sha256
    except (OSError, OutsideError):
        return False
