"""The ledger of a batch: what became of each request, in one append-only file of JSON lines.

Every run adds one row for each request: done, failed (why), blocked (by the base's safety checker), or
skipped (done before, content unchanged). Rows are never changed or removed; what was forgotten gets a row
more that says so. A killed run has lost nothing that it had finished, for pictures are on the disk before
their row.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from components.core import StrictConfig
from components.inference.journal import append_line, read_lines

Status = Literal["done", "failed", "blocked", "skipped", "forgotten"]


class LedgerRow(StrictConfig):
    """What became of a request.

    Attributes:
        line: Number in the requests file, from 1.
        id: The request's id, or "line-<number>".
        status: "done", "failed", "blocked" (the base's safety checker lets a picture not pass), "skipped"
            (done by an earlier run, content unchanged), or "forgotten".
        source: Name of the requests file, where several lie in an inbox; else empty.
        files: Pictures, relative to the batch's folder.
        thumbnail: Small JPEG of the first picture, relative to the batch's folder.
        error: Why it failed or was blocked; never repeats the request's photo or words.
        request_hash: Identity of what was asked for, of the photos and of the model.
        person: ID of the person, from the consent.
        run: Names the run that wrote the row.
        at: When it was written.
    """

    line: int
    id: str
    status: Status
    source: str = ""
    files: tuple[str, ...] = ()
    thumbnail: str = ""
    error: str | None = None
    request_hash: str = ""
    person: str = ""
    run: str = ""
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @property
    def all_files(self) -> tuple[str, ...]:
        """Pictures and thumbnail."""
        return (*self.files, self.thumbnail) if self.thumbnail else self.files


class Ledger:
    """The ledger in a folder.

    Args:
        folder: The batch's folder.
    """

    NAME = "ledger.jsonl"

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / self.NAME

    def rows(self) -> list[LedgerRow]:
        """Returns all rows, oldest first; what a killed run left of a line is passed over."""
        return read_lines(self.path, LedgerRow)

    def owners(self) -> dict[str, LedgerRow]:
        """Returns for each file the row of what lies there now: the last that wrote it."""
        found: dict[str, LedgerRow] = {}
        for row in self.rows():
            if row.status == "done":
                found |= dict.fromkeys(row.all_files, row)
        return found

    def done(self) -> dict[str, LedgerRow]:
        """Returns the finished rows by request hash whose pictures are there and not another request's."""
        owners = self.owners()
        return {
            row.request_hash: row
            for row in owners.values()
            if all(owners[file] is row and (self.folder / file).is_file() for file in row.files)
        }

    def append(self, row: LedgerRow) -> None:
        """Adds a row; it is on the disk when this returns."""
        append_line(self.path, json.dumps(row.model_dump(mode="json"), ensure_ascii=False))

    def files_of(self, person: str) -> list[Path]:
        """Returns where pictures and thumbnails of the person lie, or lay."""
        return [self.folder / name for name, row in self.owners().items() if row.person == person]

    def forget(self, person: str) -> None:
        """Says of every request of the person that its pictures are removed (after they were)."""
        gone = {row.request_hash: row for row in self.owners().values() if row.person == person}
        said = {row.request_hash for row in self.rows() if row.status == "forgotten"}
        for mark, row in gone.items():
            if mark not in said:
                update = {"status": "forgotten", "files": (), "thumbnail": "", "at": datetime.now(UTC)}
                self.append(row.model_copy(update=update))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the folder for one run, so that two never do the same work twice.

        Raises:
            ValueError: Another run works there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".ledger.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ValueError(f"another batch works in {self.folder}: wait until it has ended") from None
            yield
