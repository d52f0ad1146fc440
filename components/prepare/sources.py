"""A folder of photos -> one record a photo: file, person, split and what is known about it.

`metadata.csv`, if it is there, names the photos. Columns: `file` (needed, relative to the folder),
`identity`, `group`, `gender`, `age`, `caption`, `split`, `licence`, `consent`; others are kept as they are
under `extra`. Without it every file that is not hidden counts as a photo, so that whatever is no image ends
in the rejects and not in silence.
"""

import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from components.core import ShardFile, derive_seed, fingerprint
from components.prepare.config import PrepareConfig

METADATA = "metadata.csv"
NEEDED = ("file",)
KNOWN = ("identity", "group", "gender", "age", "caption", "split", "licence", "consent")
SPLITS: tuple[str, ...] = get_args(ShardFile.model_fields["split"].annotation)
SIDECARS = {".csv", ".parquet"}  # tables about photos, never photos
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhotoRecord:
    """One photo of a source.

    Attributes:
        file: Path below the source folder, with forward slashes.
        person: Who is on it; unique to the photo where nobody said.
        split: "train", "validation" or "heldout".
        about: The other facts: source, licence, consent, group, gender, age, caption, extra.
    """

    file: str
    person: str
    split: str
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Identity of everything stated about the photo; its pixels do not count."""
        return fingerprint(self.file, self.person, self.split, self.about)


def read_folder(folder: Path, config: PrepareConfig) -> list[PhotoRecord]:
    """Returns the records of a folder, sorted by split and file.

    Raises:
        ValueError: The folder is missing or empty, the CSV lacks a needed column, names a file twice or a
            split that does not exist, or puts one person into two splits.
    """
    if not folder.is_dir():
        raise ValueError(f"no photo folder at {folder}")
    table = folder / METADATA
    rows = list(_csv_rows(table) if table.is_file() else _file_rows(folder))
    if not rows:
        raise ValueError(f"the photo folder {folder} holds no photos")
    records = [_record(row, config) for row in rows]
    _check_splits(records)
    return sorted(records, key=lambda record: (SPLITS.index(record.split), record.file))


def split_of(person: str, config: PrepareConfig) -> str:
    """Returns the split of a person: a pure function of the name, so new photos never move anybody."""
    draw = derive_seed(config.split_salt, "split", person) / 2**63
    if draw < config.heldout_share:
        return "heldout"
    return "validation" if draw < config.heldout_share + config.validation_share else "train"


def _csv_rows(table: Path) -> Iterator[dict[str, str]]:
    """Yields the rows of metadata.csv (UTF-8, with or without a byte order mark)."""
    seen: set[str] = set()
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            found = [name.strip() for name in reader.fieldnames or []]
            missing = [name for name in NEEDED if name not in found]
            if missing:
                raise ValueError(
                    f"{table} lacks the column {', '.join(missing)}; it has: {', '.join(found) or 'none'}."
                    f" Needed: {', '.join(NEEDED)}; also read: {', '.join(KNOWN)}"
                )
            for row in reader:
                clean = {k.strip(): v.strip() for k, v in row.items() if k and isinstance(v, str)}
                if not clean["file"]:
                    raise ValueError(f"{table}, line {reader.line_num}: the column file is empty")
                if clean["file"] in seen:
                    raise ValueError(f"{table}, line {reader.line_num}: {clean['file']!r} is named twice")
                seen.add(clean["file"])
                yield clean
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not a UTF-8 CSV file: {error}") from error


def _file_rows(folder: Path) -> Iterator[dict[str, str]]:
    """Yields a row for each file below the folder that is not hidden, in sorted order."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and path.suffix.lower() not in SIDECARS:
            yield {"file": name.as_posix()}


def _record(row: dict[str, str], config: PrepareConfig) -> PhotoRecord:
    person = row.get("identity") or _person_from_name(row["file"], config)
    split = row.get("split") or split_of(person, config)
    if split not in SPLITS:
        raise ValueError(f"{METADATA}: {row['file']} has the split {split!r}; allowed: {', '.join(SPLITS)}")
    about: dict[str, Any] = {
        "source": config.source,
        "licence": row.get("licence") or config.licence,
        "consent": row.get("consent") or config.consent,
    }
    about |= {name: row[name] for name in ("group", "gender", "age", "caption") if row.get(name)}
    extra = {name: value for name, value in row.items() if name not in (*NEEDED, *KNOWN) and value}
    return PhotoRecord(row["file"], person, split, about | ({"extra": extra} if extra else {}))


def _person_from_name(file: str, config: PrepareConfig) -> str:
    name = PurePosixPath(file)
    if config.identity_from_folder and len(name.parts) > 1:
        return name.parent.as_posix()
    return name.as_posix()


def _check_splits(records: list[PhotoRecord]) -> None:
    """Refuses a person who is on two sides: what is measured on known people means nothing."""
    split_by_person: dict[str, str] = {}
    for record in records:
        first = split_by_person.setdefault(record.person, record.split)
        if first != record.split:
            raise ValueError(
                f"{METADATA}: {record.person!r} is in the splits {first} and {record.split};"
                " all photos of a person must be in one"
            )
