"""What every reader of a set shares: its store, how a file is read, where tables are found."""

import csv
import io
from collections.abc import Iterator
from typing import ClassVar

from components.prepare.config import SourceConfig
from components.prepare.sources.record import Row
from components.prepare.sources.store import State, Store, open_store


class Source:
    """A set of photos whose photos are files. Readers say what is known of them in `rows`.

    Attributes:
        licence: Of the set, where photo and settings state none.
    """

    licence: ClassVar[str] = "not stated"

    def __init__(self, config: SourceConfig, store: Store | None = None) -> None:
        self.config = config
        self.store = store or open_store(str(config.path), config.storage_options)

    def rows(self) -> Iterator[Row]:
        """Yields one row a photo, with the keys of `record`.

        Raises:
            ValueError: The set is not laid out as its kind says.
        """
        raise NotImplementedError

    def read(self, file: str) -> bytes:
        """Returns the bytes of a photo; raises OutsideError or OSError."""
        return self.store.read(file)

    def size(self, file: str) -> int:
        """Returns the bytes of a photo without reading it; raises OutsideError or OSError."""
        return self.store.size(file)

    def state(self, file: str) -> State:
        """Returns size and time of change of a photo."""
        return self.store.state(file)

    def place_of(self, file: str) -> str:
        """Returns where the set names a photo for the last time, for an error."""
        return self.store.url

    def lay_out_error(self, found: str) -> ValueError:
        """Returns the error for a folder that does not hold such a set."""
        return ValueError(f"{self.store.url} is not laid out as kind {self.config.kind!r}: {found}")

    def csv_rows(self, name: str) -> Iterator[tuple[int, Row]]:
        """Yields (line, row) of a CSV file in UTF-8, with or without a byte order mark; names are trimmed.

        Raises:
            ValueError: It is not UTF-8 or no CSV.
        """
        where = f"{self.store.url.rstrip('/')}/{name}"
        try:
            with self._text(name) as text:
                reader = csv.DictReader(text, restkey="", restval="")
                for row in reader:
                    clean = {k.strip(): v.strip() for k, v in row.items() if k and isinstance(v, str)}
                    yield reader.line_num, clean
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{where} is not a UTF-8 CSV file: {error}") from error

    def csv_columns(self, name: str) -> list[str]:
        """Returns the column names of a CSV file."""
        try:
            with self._text(name) as text:
                return [column.strip() for column in next(csv.reader(text), [])]
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.store.url}/{name} is not a UTF-8 CSV file: {error}") from error

    def _text(self, name: str) -> io.TextIOWrapper:
        """Opens a text file: a table of millions of photos is read line by line."""
        return io.TextIOWrapper(self.store.open(name), "utf-8-sig", newline="")
