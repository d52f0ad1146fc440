"""Identities of what a stage reads besides its settings: weights, photos, code."""

from typing import Any

from components.core import fingerprint, sha256_file, sha256_folder
from flows.environment import PROJECT


def weights_digest(base: str) -> str:
    """Returns the identity of a base model: the contents of a local folder, else its name on a hub."""
    folder = PROJECT / base
    if not folder.is_dir():
        return base
    small = 64 * 2**20  # the portrait base is hashed whole; of gigabytes, names, sizes and times tell enough
    parts: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".md", ".png")):
        stat = path.stat()
        name = path.relative_to(folder).as_posix()
        parts[name] = sha256_file(path) if stat.st_size <= small else [stat.st_size, stat.st_mtime_ns]
    return fingerprint(parts)


def file_digest(path: str) -> str:
    """Returns the SHA-256 of a file; "missing" where there is none, which the stage itself explains."""
    file = PROJECT / path
    return sha256_file(file) if file.is_file() else "missing"


def code_digest(part: str) -> str:
    """Returns the identity of a room's code, or of a part of it: "face", "portraits/world"."""
    path = PROJECT / "components" / part
    if path.is_file():
        return sha256_file(path)
    return sha256_folder(path, "**/*.py") if path.is_dir() else "missing"
