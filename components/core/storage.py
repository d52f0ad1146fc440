"""Files that are whole or absent: atomic writes, checksums, and paths that stay inside their folder."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_halves(folder: Path) -> None:
    """Removes what killed processes left below the folder of files that they were writing with `atomic_path`.

    Only for who works alone in the folder: a file that another one is writing looks the same.
    """
    for half in folder.rglob(".*.tmp"):
        half.unlink(missing_ok=True)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Writes the file so that a reader, or a crash, never sees half of it."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Writes UTF-8 text so that a reader, or a crash, never sees half of it."""
    write_bytes_atomic(path, text.encode("utf-8"))


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hex digits, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(folder: Path, pattern: str = "**/*") -> str:
    """Returns one SHA-256 over names and contents of the files that match, in sorted order."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.glob(pattern) if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Returns `folder / name`, refusing names that lead out of the folder.

    Raises:
        ValueError: The name is absolute or climbs out, also through links.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} leads out of {folder}: names must stay inside the folder")
    return path
