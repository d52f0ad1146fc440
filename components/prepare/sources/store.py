"""Where a set's files are: a folder of this machine, or anything that fsspec reaches. Read only.

Names are relative to the set, with forward slashes; none leads out of it.
"""

import hashlib
import logging
import os
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from components.core import derive_seed, inside

logger = logging.getLogger(__name__)
State = tuple[int, int]
GONE: State = (-1, -1)
ATTEMPTS, FIRST_PAUSE_S = 5, 0.2
T = TypeVar("T")


class OutsideError(ValueError):
    """A name that leads out of its set."""


class Store(Protocol):
    """Files of one set."""

    url: str

    def names(self) -> Iterator[str]:
        """Yields the files that are not hidden, also those of folders below, in no order."""

    def exists(self, name: str) -> bool:
        """Tells whether there is such a file or folder."""

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file; raises OutsideError or OSError."""

    def size(self, name: str) -> int:
        """Returns the bytes of a file without reading it; raises OutsideError or OSError."""

    def open(self, name: str) -> IO[bytes]:
        """Opens a file for reading at any place."""

    def state(self, name: str) -> State:
        """Returns size and a number that changes with the file, (-1, -1) if it cannot be seen."""


def open_store(url: str, options: dict[str, Any] | None = None) -> Store:
    """Returns the store of a folder or URL; nothing is fetched yet."""
    if "://" not in url or url.startswith("file://"):
        return LocalStore(Path(url.removeprefix("file://")).expanduser())
    return RemoteStore(url, options or {})


class LocalStore:
    """A folder. Links out of it are refused."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder.absolute(), str(folder)

    def names(self) -> Iterator[str]:
        """Yields the files that are not hidden, as the disk gives them."""
        if not self.folder.is_dir():
            raise ValueError(f"no photo folder at {self.folder}")
        yield from _walk(self.folder, "")

    def exists(self, name: str) -> bool:
        """Tells whether there is such a file or folder."""
        return (self.folder / name).exists()

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file."""
        return self._path(name).read_bytes()

    def size(self, name: str) -> int:
        """Returns the bytes of a file without reading it."""
        return self._path(name).stat().st_size

    def open(self, name: str) -> IO[bytes]:
        """Opens a file."""
        return self._path(name).open("rb")

    def state(self, name: str) -> State:
        """Returns size and time of change in nanoseconds."""
        try:
            state = self._path(name).stat()
        except (OSError, OutsideError):
            return GONE
        return state.st_size, state.st_mtime_ns

    def _path(self, name: str) -> Path:
        try:
            return inside(self.folder, name)
        except ValueError as error:
            raise OutsideError(str(error)) from error


class RemoteStore:
    """A prefix of an object store. One listing tells all states; faults that may pass are tried again."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        import fsspec

        self.url = url
        self._fs, root = fsspec.url_to_fs(url, **options)
        self._root = root.rstrip("/")
        self._listing: dict[str, State] | None = None
        self._folders: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Workers read single files: they need no listing."""
        return self.__dict__ | {"_listing": None, "_folders": set()}

    def names(self) -> Iterator[str]:
        """Yields the files that are not hidden, in the order of the listing."""
        if not self._states():
            raise ValueError(f"no photos below {self.url}")
        yield from (name for name in self._states() if not _hidden(name))

    def exists(self, name: str) -> bool:
        """Tells whether there is such a file or folder."""
        return name in self._states() or name in self._folders

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file."""
        path = self._path(name)
        return _patiently(lambda: self._fs.cat_file(path), path)

    def size(self, name: str) -> int:
        """Returns the bytes of a file without reading it; workers ask for the one file alone."""
        path = self._path(name)
        if self._listing is not None and name in self._listing:
            return self._listing[name][0]
        return int(_patiently(lambda: self._fs.info(path), path).get("size") or 0)

    def open(self, name: str) -> IO[bytes]:
        """Opens a file; only the ranges that are asked for travel."""
        path = self._path(name)
        return _patiently(lambda: self._fs.open(path, "rb"), path)

    def state(self, name: str) -> State:
        """Returns size and a number that changes with the file, as the listing has them."""
        return self._states().get(name, GONE)

    def _states(self) -> dict[str, State]:
        if self._listing is None:
            found = _patiently(lambda: self._fs.find(self._root, detail=True), self._root)
            start = len(self._root.lstrip("/")) + 1
            self._listing = {
                path.lstrip("/")[start:]: (int(info.get("size") or 0), _stamp(info))
                for path, info in found.items()
                if not path.endswith("/")
            }
            for name in self._listing:
                while name := posixpath.dirname(name):
                    if name in self._folders:
                        break
                    self._folders.add(name)
        return self._listing

    def _path(self, name: str) -> str:
        if posixpath.normpath(name) != name or name.startswith(("/", "..")):
            raise OutsideError(f"{name!r} leads out of {self.url}: names must stay inside")
        return f"{self._root}/{name}"


def _stamp(info: dict[str, Any]) -> int:
    for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created"):
        if info.get(key) is not None:
            return derive_seed(str(info[key]))
    return 0


def _patiently(call: Callable[[], T], what: str) -> T:
    """Calls a store that may fail now and then, with growing pauses between attempts."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError as error:
            logger.warning("%s: %s; attempt %d of %d", what, error, attempt, ATTEMPTS)
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
    return call()


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Yields the files below a folder; memory holds the names of folders alone.

    A name that is no UTF-8 comes with escapes: no table can hold it, and it ends in the rejects.
    """
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif entry.is_file():
                yield prefix + entry.name.encode("utf-8", "surrogateescape").decode(
                    "utf-8", "backslashreplace"
                )
    for name in below:
        yield from _walk(folder / name, f"{prefix}{name}/")


def digest_of(files: Iterable[bytes]) -> str:
    """Returns one SHA-256 over the bytes of several files, in their order."""
    return hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in files)).hexdigest()


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
