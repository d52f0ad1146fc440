"""All sources of a run as one: records in, bytes out. Workers hold a pickled copy."""

from pathlib import Path

from components.core import fingerprint
from components.prepare.config import PrepareConfig, SourceConfig
from components.prepare.sources.base import Source
from components.prepare.sources.celebahq import CelebAHQSource
from components.prepare.sources.fairface import FairFaceSource
from components.prepare.sources.ffhq import FFHQSource
from components.prepare.sources.folder import FolderSource
from components.prepare.sources.parquet import ParquetSource
from components.prepare.sources.record import PhotoRecord, in_plan_order, is_taken, settle_splits, to_record
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
        folder: The run's photo folder, for sources without a path, or the only source where none is named.

    Raises:
        ValueError: A source needs the run's photo folder and there is none.
    """

    def __init__(self, config: PrepareConfig, folder: Path | None = None) -> None:
        self.config = config
        # One unnamed folder keeps its plain file names; named sources put their name in front.
        self.sources: dict[str, Source] = (
            {f"{source.label}/": _open(source, folder) for source in config.sources}
            if config.sources
            else {"": _open(SourceConfig(groups={}), folder)}
        )

    def records(self) -> list[PhotoRecord]:
        """Returns a record a photo, by split and file.

        Raises:
            ValueError: A source is missing, empty or not laid out as its kind says, or a person is in two
                splits.
        """
        records: list[PhotoRecord] = []
        for prefix, source in self.sources.items():
            licence = source.licence if prefix and source.licence != "not stated" else self.config.licence
            found = [to_record(row, self.config, source.config, licence, prefix) for row in source.rows()]
            if not found:
                raise ValueError(f"the photo folder {source.store.url} holds no photos")
            records += [r for r in found if is_taken(r.person, source.config.weight, self.config)]
        return in_plan_order(settle_splits(records))

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
        parts = [
            [prefix, name, *source.store.state(name)]
            for prefix, source in self.sources.items()
            for name in source.store.names()
        ]
        return fingerprint(parts)

    def _find(self, file: str) -> tuple[Source, str]:
        for prefix, source in self.sources.items():
            if file.startswith(prefix):
                return source, file.removeprefix(prefix)
        raise OutsideError(f"{file!r} is of no source; there are: {', '.join(self.sources)}")


def sources_digest(config: PrepareConfig) -> str:
    """Returns the identity of the files of all sources with a path of their own; none is read."""
    placed = tuple(source for source in config.sources if source.path is not None)
    return Library(config.model_copy(update={"sources": placed})).digest() if placed else ""


def read_folder(folder: Path, config: PrepareConfig) -> list[PhotoRecord]:
    """Returns the records of one plain folder."""
    return Library(config.model_copy(update={"sources": ()}), folder).records()


def _open(source: SourceConfig, folder: Path | None) -> Source:
    if source.path is None:
        if folder is None:
            raise ValueError(
                f"source {source.label!r} has no path, and the run has no photo folder of its own"
            )
        source = source.model_copy(update={"path": str(folder)})
    return READERS[source.kind](source)
