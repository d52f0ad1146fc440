"""The ledger of a batch: what became of each request, one JSON object a line.

While a batch runs, rows are appended to `ledger.partial.jsonl`, so that a killed run has lost nothing that
it had finished. At the end `ledger.jsonl` is written whole, one row a request in the order of the file.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from components.core import StrictConfig, write_text_atomic


class LedgerRow(StrictConfig):
    """What became of a request.

    Attributes:
        line: Number in the requests file.
        id: The request's id, or "line-<number>".
        status: "done" or "failed".
        files: Pictures, relative to the batch's folder.
        error: Why it failed.
        request_hash: Identity of what was asked for, of the photos and of the model.
    """

    line: int
    id: str
    status: Literal["done", "failed"]
    files: tuple[str, ...] = ()
    error: str | None = None
    request_hash: str = ""


class Ledger:
    """The ledger in a folder.

    Args:
        folder: The batch's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path, self.partial = folder / "ledger.jsonl", folder / "ledger.partial.jsonl"

    def done(self) -> dict[str, LedgerRow]:
        """Returns the finished rows by request hash, of this and of a killed run, whose pictures exist."""
        rows = [*_read(self.path), *_read(self.partial)]
        return {
            row.request_hash: row
            for row in rows
            if row.status == "done" and all((self.folder / file).is_file() for file in row.files)
        }

    def append(self, row: LedgerRow) -> None:
        """Adds a row that is not lost if the run is killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.partial.open("a", encoding="utf-8") as file:
            file.write(_line(row))

    def finish(self, rows: list[LedgerRow]) -> Path:
        """Writes the whole ledger."""
        write_text_atomic(self.path, "".join(_line(row) for row in rows))
        self.partial.unlink(missing_ok=True)
        return self.path


def _line(row: LedgerRow) -> str:
    return json.dumps(row.model_dump(mode="json"), ensure_ascii=False) + "\n"


def _read(path: Path) -> list[LedgerRow]:
    """Reads the rows that are whole; a killed run may have left half a line."""
    if not path.is_file():
        return []
    rows = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values: Any = json.loads(text)
            rows.append(LedgerRow.model_validate(values))
        except (json.JSONDecodeError, ValidationError):
            continue
    return rows
