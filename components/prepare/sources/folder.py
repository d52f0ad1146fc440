"""A plain folder of photos; `metadata.csv`, if it is there, names them.

Columns: `file` (needed, relative to the folder), `identity`, `group`, `gender`, `age`, `caption`, `split`,
`licence`, `consent`; others are kept as they are under `extra`. Without it every file that is not hidden
counts as a photo, so that whatever is no image ends in the rejects and not in silence. The drawn people of
`components.portraits` come as such a folder.
"""

from collections.abc import Iterator

from components.prepare.sources.base import Source
from components.prepare.sources.record import KNOWN, Row

METADATA = "metadata.csv"
SIDECARS = (".csv", ".parquet")  # tables about photos, never photos


class FolderSource(Source):
    """A folder with or without `metadata.csv`."""

    def rows(self) -> Iterator[Row]:
        """Yields the rows of the table, or one a file."""
        if self.store.exists(METADATA):
            yield from self._table()
            return
        for name in self.store.names():
            if not name.lower().endswith(SIDECARS):
                yield {"file": name}

    def _table(self) -> Iterator[Row]:
        where = f"{self.store.url.rstrip('/')}/{METADATA}"
        found = self.csv_columns(METADATA)
        if "file" not in found:
            raise ValueError(
                f"{where} lacks the column file; it has: {', '.join(found) or 'none'}."
                f" Needed: file; also read: {', '.join(KNOWN)}"
            )
        for line, row in self.csv_rows(METADATA):
            if not row["file"]:
                raise ValueError(f"{where}, line {line}: the column file is empty")
            yield {name: value for name, value in row.items() if name not in ("part", "masks")}

    def place_of(self, file: str) -> str:
        """Returns the table and the line of it that names a photo last."""
        where = f"{self.store.url.rstrip('/')}/{METADATA}"
        lines = [line for line, row in self.csv_rows(METADATA) if row["file"] == file]
        return f"{where}, line {lines[-1]}"
