"""Append-only files of JSON lines, which survive a writer that is killed in the middle of a line."""

import fcntl
import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from components.core import StrictConfig

Row = TypeVar("Row", bound=StrictConfig)


def append_line(path: Path, text: str) -> None:
    """Appends one line, whole or not at all for readers of whole lines, even after a writer was killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
            text = "\n" + text  # a killed writer left half a line; ours starts on its own
        file.write(f"{text}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path, kind: type[Row]) -> list[Row]:
    """Reads the lines that are whole; what a killed writer left of one is passed over."""
    if not path.is_file():
        return []
    rows = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            rows.append(kind.model_validate_json(text))
        except ValidationError:
            continue
    return rows
