"""`photoverse backup` and `photoverse restore`: a team's databases and store, as one folder.

The folder holds a dump of each database (PostgreSQL's own format), a copy of the store, and backup.json with
a SHA-256 of every file; a restore checks all of them before it changes anything. PostgreSQL is found through
its own variables (PGHOST, PGPORT, PGUSER, PGPASSWORD), the store through fsspec's.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.core import sha256_file, write_text_atomic

DATABASES = ("prefect", "mlflow", "mlflow_auth")
NOTE = "backup.json"


def backup(out: Path, store: str, databases: Sequence[str] = DATABASES) -> int:
    """Writes the backup; returns the number of its files.

    The databases come first: a model that is registered while the store is copied has its files in the copy
    and no row, which does no harm; a row without files would.

    Args:
        out: New folder.
        store: URL of what to copy, e.g. `s3://photoverse`.
        databases: Names of the databases.

    Raises:
        ValueError: The folder is there already.
        RuntimeError: PostgreSQL's program failed; the message holds its words.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: a backup goes into a folder of its own")
    out.mkdir(parents=True, exist_ok=True)
    for name in databases:
        _postgres("pg_dump", "--format=custom", f"--file={out / name}.dump", f"--dbname={name}")
    filesystem, root = _store(store)
    for path in filesystem.find(root):
        target = out / "store" / path.removeprefix(root).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        filesystem.get_file(path, str(target))
    files = {
        str(path.relative_to(out)): sha256_file(path) for path in sorted(out.rglob("*")) if path.is_file()
    }
    note = {"made": datetime.now(UTC).isoformat(), "databases": list(databases), "files": files}
    write_text_atomic(out / NOTE, json.dumps(note, indent=2))
    return len(files)


def restore(folder: Path, store: str) -> int:
    """Puts a backup back: databases are replaced, the store's files overwritten; returns the number of files.

    Services must be stopped, and the databases, their owners and the bucket be there (empty or not): on new
    machines infra/compose/databases.sh makes them. What is restored belongs to its owner again.

    Raises:
        ValueError: The folder is no backup, or a file of it is missing or changed.
        RuntimeError: PostgreSQL's program failed.
    """
    note = _checked(folder)
    for name in note["databases"]:
        file = folder / f"{name}.dump"
        words = ["--clean", "--if-exists", "--single-transaction", f"--dbname={name}", str(file)]
        _postgres("pg_restore", *words)
    filesystem, root = _store(store)
    for name in note["files"]:
        if name.startswith("store/"):
            target = f"{root.rstrip('/')}/{name.removeprefix('store/')}"
            if "://" not in store:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
            filesystem.put_file(str(folder / name), target)
    return len(note["files"])


def _checked(folder: Path) -> dict[str, Any]:
    file = folder / NOTE
    if not file.is_file():
        raise ValueError(f"{folder} is no whole backup: {NOTE} is missing")
    note: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for name, digest in note["files"].items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != digest:
            raise ValueError(f"{path} is missing or not what was backed up: nothing was restored")
    return note


def _store(url: str) -> tuple[Any, str]:
    import fsspec

    filesystem, root = fsspec.url_to_fs(url)
    return filesystem, root


def _postgres(program: str, *words: str) -> None:
    path = shutil.which(program)
    if path is None:
        raise ValueError(f"{program} is not on the PATH: install PostgreSQL's client programs")
    done = subprocess.run([path, *words], env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr.strip()[-1000:]}")
