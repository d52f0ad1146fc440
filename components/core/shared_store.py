"""A store that nodes share in the place of a folder: what lies below `root` here lies below `url` there.

Each node works in a folder of its own; what it made goes to the store, what others made comes from there,
both by content: a file that is the same already does not travel. A folder is known in the store by
`contents.json`, the SHA-256 of each of its files, written last: a folder that is half sent is not seen.

Hidden files (locks, halves, catalogues) stay at home. Two nodes that change one folder at once are not kept
apart: the later one's list of contents stands.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import field_validator

from components.core.config import StrictConfig
from components.core.storage import atomic_path, inside, sha256_file

logger = logging.getLogger(__name__)
CONTENTS = "contents.json"
AT_ONCE = 8  # files that travel at the same time


class SharedStore(StrictConfig):
    """An fsspec URL and the folder of this machine that stands for it.

    Attributes:
        url: E.g. `s3://bucket/runs`. Keys and endpoints come from the environment, as each store's library
            reads them.
        root: The folder, absolute; the same path on every node, and shared by none.
    """

    url: str
    root: str

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if "://" not in url:
            raise ValueError(f"expected a URL that fsspec reaches, e.g. s3://bucket/runs; found {url!r}")
        return url.rstrip("/")

    def url_of(self, path: Path) -> str:
        """Returns where a file or folder below the root lies in the store.

        Raises:
            ValueError: It is not below the root.
        """
        if not path.is_relative_to(self.root):
            raise ValueError(f"{path} is not below {self.root}, the folder that {self.url} stands for")
        name = path.relative_to(self.root).as_posix()
        return self.url if name == "." else f"{self.url}/{name}"

    def filesystem(self) -> Any:
        """Returns the fsspec filesystem; it keeps no listings, for other nodes write too."""
        return self._open(self.url)[0]

    def has(self, path: Path) -> bool:
        """Tells whether the store holds the file, or a folder that was sent whole."""
        filesystem, place = self._open(self.url_of(path))
        return bool(filesystem.exists(f"{place}/{CONTENTS}") or filesystem.isfile(place))

    def send(self, folder: Path, leave: Iterable[str] = ()) -> int:
        """Makes the store's copy of a folder what the folder is; returns the number of files that travelled.

        Args:
            folder: Below the root; need not exist.
            leave: Names of folders directly below it that are not the store's business.
        """
        filesystem, place = self._open(self.url_of(folder))
        there, here = self._contents(filesystem, place), _listing(folder, frozenset(leave))
        if there == here:
            return 0
        there = there or {}
        changed = [name for name, digest in here.items() if there.get(name) != digest]
        _at_once(lambda name: filesystem.put_file(str(folder / name), f"{place}/{name}"), changed)
        data = json.dumps(here, indent=1, sort_keys=True).encode()
        filesystem.pipe_file(f"{place}/{CONTENTS}", data)
        for name in there.keys() - here.keys():
            filesystem.rm_file(f"{place}/{name}")
        logger.info("%d of %d files of %s sent to %s", len(changed), len(here), folder.name, self.url)
        return len(changed)

    def fetch(self, folder: Path, leave: Iterable[str] = ()) -> int:
        """Makes a folder what the store's copy is; returns the number of files that travelled.

        Files that only this machine has are removed: what was forgotten in the store must not come back from
        here. A folder that the store does not know is left as it is.

        Args:
            folder: Below the root.
            leave: Names directly below it that are not the store's business.

        Raises:
            ValueError: A file is not what the list of contents says, or its name leads out of the folder.
        """
        filesystem, place = self._open(self.url_of(folder))
        there = self._contents(filesystem, place)
        if there is None:
            return 0
        missing = [name for name, digest in there.items() if not _is_here(inside(folder, name), digest)]
        for name in _names(folder, frozenset(leave)):
            if name not in there:
                (folder / name).unlink(missing_ok=True)
        _at_once(lambda name: _bring(filesystem, f"{place}/{name}", folder / name, there[name]), missing)
        return len(missing)

    def folders(self, pattern: str) -> list[Path]:
        """Returns the folders below the root that the store holds whole, e.g. of `*/personalize`."""
        return [file.parent for file in self.files(f"{pattern}/{CONTENTS}")]

    def files(self, pattern: str) -> list[Path]:
        """Returns where files that the store holds have their place below the root."""
        filesystem, place = self._open(self.url)
        start = len(place.lstrip("/")) + 1
        names = sorted(str(path).lstrip("/")[start:] for path in filesystem.glob(f"{place}/{pattern}"))
        return [inside(Path(self.root), name) for name in names]

    def send_file(self, file: Path) -> None:
        """Puts one file into the store, in one piece."""
        filesystem, place = self._open(self.url_of(file))
        filesystem.pipe_file(place, file.read_bytes())

    def fetch_file(self, file: Path) -> bool:
        """Brings one file in its newest form; tells whether the store holds it."""
        filesystem, place = self._open(self.url_of(file))
        if not filesystem.isfile(place):
            return False
        _bring(filesystem, place, file, None)
        return True

    def fetch_files(self, folder: Path, suffix: str) -> None:
        """Brings the files directly in a folder that were sent one by one, by the end of their names."""
        filesystem, place = self._open(self.url_of(folder))
        if filesystem.isdir(place):
            for path in filesystem.ls(place, detail=False):
                if path.endswith(suffix) and not path.endswith(f"/{CONTENTS}"):
                    _bring(filesystem, path, inside(folder, path.rsplit("/", 1)[1]), None)

    def _open(self, url: str) -> tuple[Any, str]:
        import fsspec

        filesystem, place = fsspec.url_to_fs(url, use_listings_cache=False)
        return filesystem, str(place).rstrip("/")

    def _contents(self, filesystem: Any, place: str) -> dict[str, str] | None:
        """Returns SHA-256 by name of a folder that was sent; None where the store knows none."""
        try:
            found: dict[str, str] = json.loads(filesystem.cat_file(f"{place}/{CONTENTS}"))
        except FileNotFoundError:
            return None
        return found


def _names(folder: Path, leave: frozenset[str]) -> Iterator[str]:
    """Yields the files below a folder that are not hidden, in order."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] not in leave and not any(part.startswith(".") for part in parts):
            yield "/".join(parts)


def _listing(folder: Path, leave: frozenset[str]) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in _names(folder, leave)}


def _is_here(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_file(path) == digest


def _bring(filesystem: Any, place: str, path: Path, digest: str | None) -> None:
    with atomic_path(path) as temporary:
        filesystem.get_file(place, os.fspath(temporary))
        if digest is not None and sha256_file(temporary) != digest:
            raise ValueError(
                f"{place} is not what its folder's {CONTENTS} says: it is damaged, or was changed"
            )


def _at_once(do: Callable[[str], None], names: list[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(do, names))
