"""All photos of a run, listed on disk: what needs all of them at once is asked of a SQLite file.

Memory does not grow with the number of photos; the file takes about 0.6 GB a million of them. It is made anew
by each run and holds nothing that the sources and the journal could not tell again.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from components.prepare.sources.record import SPLITS, PhotoRecord

SCHEMA = """
CREATE TABLE photos(
    file TEXT PRIMARY KEY, person TEXT NOT NULL, split INTEGER NOT NULL, about TEXT NOT NULL,
    masks TEXT NOT NULL, labelled INTEGER NOT NULL, stated INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE plan(
    shard INTEGER, position INTEGER, file TEXT NOT NULL, size INTEGER, mtime_ns INTEGER, masks_state TEXT,
    PRIMARY KEY(shard, position)
) WITHOUT ROWID;
CREATE TABLE done(
    file TEXT PRIMARY KEY, shard TEXT NOT NULL, position INTEGER NOT NULL, samples INTEGER NOT NULL,
    sha256 TEXT NOT NULL, reason TEXT, detail TEXT NOT NULL, repeats TEXT NOT NULL, picture_hash TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX done_by_shard ON done(shard, position);
CREATE INDEX done_by_reason ON done(reason, file);
CREATE TABLE originals(sha256 TEXT PRIMARY KEY, file TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pictures(number INTEGER PRIMARY KEY, file TEXT NOT NULL);
CREATE TABLE left_out(file TEXT PRIMARY KEY) WITHOUT ROWID;
"""
COLUMNS = "file, person, split, about, masks, labelled, stated"
WAIT_S = 120.0  # for a worker that is reading the file, or the driver that is writing it


class Catalogue:
    """The list of a run's photos.

    Args:
        path: File to make, in place of one that an interrupted run left; None keeps the list in memory, for
            small sets.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._remove()
        self.db = _connect(str(path) if path else ":memory:")
        self.db.executescript(SCHEMA)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens the file of a running run, to read what it planned."""
        catalogue = cls.__new__(cls)
        catalogue.path, catalogue.db = path, _connect(str(path))
        return catalogue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.db.close()
        self._remove()

    def _remove(self) -> None:
        if self.path is not None:
            for suffix in ("", "-journal"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def fill(self, records: Iterable[PhotoRecord]) -> int:
        """Adds records, as they come, and returns their number.

        Raises:
            sqlite3.IntegrityError: A file comes twice.
        """
        before = self.db.total_changes
        self.db.executemany(
            f"INSERT INTO photos({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", map(_values, records)
        )
        self.db.commit()
        return self.db.total_changes - before

    def settle_splits(self) -> None:
        """Puts each person in one split: photos without a stated one follow those with one.

        Raises:
            ValueError: Photos of one person are stated to be in two splits: what is measured on known people
                means nothing.
        """
        self.db.execute("CREATE INDEX IF NOT EXISTS by_person ON photos(person, stated, split)")
        torn = self.db.execute(
            "SELECT person, MIN(split), MAX(split) FROM photos WHERE stated GROUP BY person"
            " HAVING MIN(split) != MAX(split) LIMIT 1"
        ).fetchone()
        if torn is not None:
            raise ValueError(
                f"{torn[0]!r} is in the splits {SPLITS[torn[1]]} and {SPLITS[torn[2]]};"
                " all photos of a person must be in one"
            )
        self.db.execute(
            "UPDATE photos SET split ="
            " (SELECT p.split FROM photos p WHERE p.person = photos.person AND p.stated)"
            " WHERE NOT stated AND person IN (SELECT person FROM photos WHERE stated)"
        )
        self.db.commit()

    def rename_people(self, person_of: Mapping[str, str], split_of: Callable[[str], str]) -> None:
        """Gives unlabelled photos their people; a person with a photo that its set holds out is held out.

        Args:
            person_of: Name that a photo has alone -> person.
            split_of: Person -> split, where no set states one.
        """
        self.db.create_function("split_of", 1, lambda person: SPLITS.index(split_of(person)))
        self.db.execute("CREATE TEMP TABLE renamed(alone TEXT PRIMARY KEY, person TEXT)")
        self.db.executemany("INSERT INTO renamed VALUES (?, ?)", person_of.items())
        self.db.execute(
            "CREATE TEMP TABLE sides AS SELECT r.person, MAX(CASE WHEN p.stated THEN p.split END) AS split"
            " FROM photos p JOIN renamed r ON r.alone = p.person WHERE NOT p.labelled GROUP BY r.person"
        )
        self.db.execute("CREATE INDEX side_of ON sides(person)")
        self.db.execute(
            "UPDATE photos SET person = (SELECT person FROM renamed WHERE alone = photos.person)"
            " WHERE NOT labelled AND person IN (SELECT alone FROM renamed)"
        )
        self.db.execute(
            "UPDATE photos SET split = COALESCE((SELECT split FROM sides s WHERE s.person = photos.person),"
            " split_of(person)) WHERE NOT labelled AND person IN (SELECT person FROM sides)"
        )
        self.db.executescript("DROP TABLE renamed; DROP TABLE sides")
        self.db.commit()

    def leave_out(self, is_meant: Callable[[str, str], bool]) -> int:
        """Takes photos off the list, and returns how many.

        Args:
            is_meant: (file, person) -> whether it goes.
        """
        self.db.create_function("is_meant", 2, is_meant)
        self.db.execute("INSERT OR IGNORE INTO left_out SELECT file FROM photos WHERE is_meant(file, person)")
        count = self.db.execute("DELETE FROM photos WHERE file IN (SELECT file FROM left_out)").rowcount
        self.db.commit()
        return int(count)

    def is_left_out(self, file: str) -> bool:
        """Tells whether a photo was taken off the list."""
        return self.one("SELECT 1 FROM left_out WHERE file = ?", file) is not None

    def records(self, condition: str = "1", values: Iterable[Any] = ()) -> Iterator[PhotoRecord]:
        """Yields the records that meet an SQL condition, by split and file."""
        for row in self.db.execute(
            f"SELECT {COLUMNS} FROM photos WHERE {condition} ORDER BY split, file", tuple(values)
        ):
            yield _record(row)

    def record(self, file: str) -> PhotoRecord | None:
        """Returns the record of a photo, None if there is none."""
        return next(self.records("file = ?", (file,)), None)

    def planned(self, shard: int) -> list[tuple[PhotoRecord, tuple[int, int], str]]:
        """Returns record, state and state of the masks of the photos of a planned shard, in their order."""
        rows = self.db.execute(
            f"SELECT size, mtime_ns, masks_state, {', '.join('photos.' + c for c in COLUMNS.split(', '))}"
            " FROM plan JOIN photos USING (file) WHERE shard = ? ORDER BY position",
            (shard,),
        )
        return [(_record(row[3:]), (row[0], row[1]), row[2]) for row in rows]

    def one(self, question: str, *values: Any) -> Any:
        """Returns the first column of the first row of the answer, None if there is no row."""
        row = self.db.execute(question, values).fetchone()
        return None if row is None else row[0]


def _connect(name: str) -> sqlite3.Connection:
    db = sqlite3.connect(name, timeout=WAIT_S)
    # Nothing here must outlive a crash: no waiting for the disk.
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA temp_store = FILE")
    return db


def _values(record: PhotoRecord) -> tuple[Any, ...]:
    return (
        record.file,
        record.person,
        SPLITS.index(record.split),
        json.dumps(record.about, ensure_ascii=False),
        "\n".join(record.masks),
        record.labelled,
        record.stated,
    )


def _record(row: tuple[Any, ...]) -> PhotoRecord:
    file, person, split, about, masks, labelled, stated = row
    return PhotoRecord(
        file=file,
        person=person,
        split=SPLITS[split],
        about=json.loads(about),
        masks=tuple(masks.split("\n")) if masks else (),
        labelled=bool(labelled),
        stated=bool(stated),
    )
