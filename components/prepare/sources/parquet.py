"""Photos inside parquet files, as hubs ship sets: an image column of bytes, or of {bytes, path}.

    data/train-00000-of-00002.parquet  data/validation-00000-of-00001.parquet ...

A photo is named `<file>#<row>`. The word before the first "-" is the set's own name of the split. Integer
columns that the file's `huggingface` metadata calls ClassLabel are turned into their words. Licence: that of
the set; state it in `sources[].licence`.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.prepare.sources.base import Source
from components.prepare.sources.record import FACTS, Row
from components.prepare.sources.store import State

LABELS = ("identity", *FACTS, "licence", "consent")


class ParquetSource(Source):
    """A parquet file, or a folder of them. Pickled without what it has open."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open: tuple[str, pq.ParquetFile] | None = None
        self._group: tuple[str, int, list[Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves open files behind."""
        return self.__dict__ | {"_open": None, "_group": None}

    def rows(self) -> Iterator[Row]:
        """Yields a row for each row of each file; the images themselves are not read."""
        files = sorted(name for name in self.store.names() if name.endswith(".parquet"))
        if not files:
            raise self.lay_out_error("no *.parquet")
        for file in files:
            table = self._file(file)
            self._image_column(table)
            part = file.rsplit("/", 1)[-1].removesuffix(".parquet").split("-")[0]
            number = 0
            columns, words = self._label_columns(table.schema_arrow), class_words(table.schema_arrow)
            for group in range(table.num_row_groups):
                labels = table.read_row_group(group, columns=list(columns.values())).to_pydict()
                for i in range(table.metadata.row_group(group).num_rows):
                    row = {ours: _text(labels[name][i], words.get(name)) for ours, name in columns.items()}
                    row["gender"] = row.get("gender", "").lower()
                    yield row | {"file": f"{file}#{number}", "part": part}
                    number += 1

    def read(self, file: str) -> bytes:
        """Returns the bytes of one photo; the row group around it stays in memory for its neighbours."""
        name, _, row = file.rpartition("#")
        try:
            return self._read(name, int(row))
        except (pa.ArrowException, ValueError) as error:
            raise OSError(f"{name} is damaged: {error}") from error

    def size(self, file: str) -> int:
        """Returns 0: a photo's size is not known before its row group is read."""
        return 0

    def _read(self, name: str, row: int) -> bytes:
        table, at = self._file(name), row
        for group in range(table.num_row_groups):
            length = table.metadata.row_group(group).num_rows
            if at < length:
                return _image_bytes(self._images(name, table, group)[at])
            at -= length
        raise FileNotFoundError(f"{name} has no row {row}")

    def state(self, file: str) -> State:
        """Returns size and time of change of the parquet file."""
        return self.store.state(file.rpartition("#")[0])

    def _file(self, name: str) -> pq.ParquetFile:
        if self._open is None or self._open[0] != name:
            try:
                self._open = (name, pq.ParquetFile(self.store.open(name)))
            except pa.ArrowInvalid as error:
                raise ValueError(f"{self.store.url}/{name} is not a parquet file: {error}") from error
        return self._open[1]

    def _images(self, name: str, table: pq.ParquetFile, group: int) -> list[Any]:
        if self._group is None or self._group[:2] != (name, group):
            column = self._image_column(table)
            self._group = (name, group, table.read_row_group(group, columns=[column]).column(0).to_pylist())
        return self._group[2]

    def _image_column(self, table: pq.ParquetFile) -> str:
        name = self.config.columns.get("image", "image")
        if name not in table.schema_arrow.names:
            found = ", ".join(table.schema_arrow.names)
            raise self.lay_out_error(f"no column {name!r} (sources[].columns.image); it has: {found}")
        return name

    def _label_columns(self, schema: pa.Schema) -> dict[str, str]:
        named = {name: self.config.columns.get(name, name) for name in LABELS}
        lost = [name for name in self.config.columns.values() if name not in schema.names]
        if lost:
            raise self.lay_out_error(f"no columns {', '.join(lost)}; it has: {', '.join(schema.names)}")
        return {ours: name for ours, name in named.items() if name in schema.names}


def class_words(schema: pa.Schema) -> dict[str, list[str]]:
    """Returns column -> words of its integers, from the metadata that `datasets` writes."""
    raw = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(raw).get("info", {}).get("features", {}) if raw else {}
    return {name: f["names"] for name, f in features.items() if isinstance(f, dict) and "names" in f}


def _text(value: Any, words: list[str] | None) -> str:
    if value is None:
        return ""
    return words[value] if words is not None and isinstance(value, int) and value >= 0 else str(value)


def _image_bytes(value: Any) -> bytes:
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else b""
