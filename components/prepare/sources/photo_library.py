"""All sources of a run as one: records in, bytes out. Workers hold a pickled copy."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from components.core import fingerprint
from components.prepare.config import PrepareConfig, SourceConfig
from components.prepare.sources.base import Source
from components.prepare.sources.catalogue import Catalogue
from components.prepare.sources.celebahq import CelebAHQSource
from components.prepare.sources.fairface import FairFaceSource
from components.prepare.sources.ffhq import FFHQSource
from components.prepare.sources.folder import FolderSource
from components.prepare.sources.parquet import ParquetSource
from components.prepare.sources.record import PhotoRecord, is_taken, to_record
from components.prepare.sources.store import GONE, OutsideError, State

READERS: dict[str, type[Source]] = {
    "folder": FolderSource,
    "fairface": FairFaceSource,
    "celebahq": CelebAHQSource,
    "ffhq": FFHQSource,
    "parquet": ParquetSource,
}


class Library:
    """The sources of a run.

    Args:
        config: `sources`, and the defaults for what they do not state.
        folder: The run's photo folder or its URL, for sources without a path, or the only source where none
            is named.

    Raises:
        ValueError: A source needs the run's photo folder and there is none.
    """

    def __init__(self, config: PrepareConfig, folder: Path | str | None = None) -> None:
        self.config = config
        # One unnamed folder keeps its plain file names; named sources put their name in front.
        self.sources: dict[str, Source] = (
            {f"{source.label}/": _open(source, folder) for source in config.sources}
            if config.sources
            else {"": _open(SourceConfig(groups={}), folder)}
        )

    def list_into(self, catalogue: Catalogue) -> None:
        """Adds a record a photo to an empty catalogue, one after the other, and settles the splits.

        Raises:
            ValueError: A source is missing, empty or not laid out as its kind says, names a photo twice, or a
                person is in two splits.
        """
        for prefix, source in self.sources.items():
            last: list[str] = [""]
            try:
                catalogue.fill(self._taken(prefix, source, last))
            except sqlite3.IntegrityError as error:
                raise ValueError(f"{source.place_of(last[0])}: {last[0]!r} is named twice") from error
            if not last[0]:
                raise ValueError(f"the photo folder {source.store.url} holds no photos")
        catalogue.settle_splits()

    def records(self) -> list[PhotoRecord]:
        """Returns a record a photo, by split and file: for sets that fit in memory; see `list_into`."""
        with Catalogue() as catalogue:
            self.list_into(catalogue)
            return list(catalogue.records())

    def _taken(self, prefix: str, source: Source, last: list[str]) -> Iterator[PhotoRecord]:
        """Yields the records of a source's share; `last` holds the name of the photo that was read last."""
        licence = source.licence if prefix and source.licence != "not stated" else self.config.licence
        for row in source.rows():
            last[0] = row["file"]
            record = to_record(row, self.config, source.config, licence, prefix)
            if is_taken(record.person, source.config.weight, self.config):
                yield record

    def read(self, file: str) -> bytes:
        """Returns the bytes of a photo; raises OutsideError or OSError."""
        source, name = self._find(file)
        return source.read(name)

    def size(self, file: str) -> int:
        """Returns the bytes of a photo without reading it, 0 if unknown; raises OutsideError or OSError."""
        source, name = self._find(file)
        return source.size(name)

    def state(self, file: str) -> State:
        """Returns size and time of change of a photo, (-1, -1) if it cannot be seen."""
        try:
            source, name = self._find(file)
        except OutsideError:
            return GONE
        return source.state(name)

    def digest(self) -> str:
        """Returns the identity of all files of the sources: names, sizes, times of change; none is read."""
        total, count = 0, 0
        for prefix, source in self.sources.items():
            for name in source.store.names():
                # A sum does not ask for an order, and so for no list of all names.
                one = f"{prefix}\0{name}\0{source.store.state(name)}".encode()
                total, count = (total + int.from_bytes(hashlib.sha256(one).digest())) % 2**256, count + 1
        return fingerprint(count, total)

    def _find(self, file: str) -> tuple[Source, str]:
        for prefix, source in self.sources.items():
            if file.startswith(prefix):
                return source, file.removeprefix(prefix)
        raise OutsideError(f"{file!r} is of no source; there are: {', '.join(self.sources)}")


def sources_digest(config: PrepareConfig, folder: Path | str | None = None) -> str:
    """Returns the identity of the files of all sources, none of which is read.

    Args:
        config: Sources; those without a path count only with a folder.
        folder: The user's photo folder, None where the run draws its people.
    """
    placed = tuple(source for source in config.sources if source.path is not None or folder is not None)
    if not placed and folder is None:
        return ""
    return Library(config.model_copy(update={"sources": placed}), folder).digest()


def read_folder(folder: Path, config: PrepareConfig) -> list[PhotoRecord]:
    """Returns the records of one plain folder."""
    return Library(config.model_copy(update={"sources": ()}), folder).records()


def _open(source: SourceConfig, folder: Path | str | None) -> Source:
    if source.path is None:
        if folder is None:
            raise ValueError(
                f"source {source.label!r} has no path, and the run has no photo folder of its own"
            )
        source = source.model_copy(update={"path": str(folder)})
    return READERS[source.kind](source)
