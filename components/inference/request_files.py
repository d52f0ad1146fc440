"""Files of requests, read into plain values: JSONL, CSV or Parquet, one file or an inbox full of them.

A place is a file, a folder, or a URL of either that fsspec reaches (`s3://bucket/inbox`). Of a folder every
file of a known kind is taken, in the order of their names. In CSV and Parquet a nested field may be a column
of its own, such as `dials.sigma` or `consent.person`.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

KINDS = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class RawRequest:
    """One request as it was written.

    Attributes:
        source: Name of its file in an inbox; empty where the place is one file.
        line: Number of the line (JSONL) or of the row (CSV, Parquet), from 1.
        values: What was written; not yet checked.
        error: Why it cannot be read.
    """

    source: str
    line: int
    values: Any = None
    error: str | None = None


def read_place(place: Path | str) -> tuple[list[RawRequest], str]:
    """Reads all requests of a place.

    Returns:
        The requests, and the folder (or its URL) that relative photos are below.

    Raises:
        ValueError: There is no such place, a file is damaged, or it holds no request; an inbox may be empty.
    """
    fs, path = fsspec.url_to_fs(str(place))
    remote = "://" in str(place)
    inbox = fs.isdir(path)
    if not inbox and not fs.isfile(path):
        raise ValueError(f"no requests file at {place}")
    files = _files_of_inbox(fs, path) if inbox else [path]
    requests = [
        RawRequest(PurePosixPath(file).name if inbox else "", *found)
        for file in files
        for found in _read(fs.cat_file(file), PurePosixPath(file).name)
    ]
    if not requests and not inbox:  # an inbox may be empty tonight
        raise ValueError(f"{place} holds no request")
    folder = path if inbox else str(PurePosixPath(path).parent)
    return requests, fs.unstrip_protocol(folder) if remote else folder


def _files_of_inbox(fs: Any, path: str) -> list[str]:
    """Returns the files of known kinds, hidden ones left out: they may still be on their way."""
    fs.invalidate_cache()  # a listing of yesterday knows no new files
    found = [str(file) for file in fs.ls(path, detail=False)]
    return sorted(
        file
        for file in found
        if PurePosixPath(file).suffix in KINDS and not PurePosixPath(file).name.startswith((".", "_"))
    )


def _read(data: bytes, name: str) -> Iterator[tuple[int, Any, str | None]]:
    """Yields (line, values, error) of each request of a file."""
    kind = PurePosixPath(name).suffix
    if kind == ".parquet":
        yield from _parquet_rows(data, name)
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text: {error}") from error
    yield from _csv_rows(text, name) if kind == ".csv" else _json_lines(text)


def _json_lines(text: str) -> Iterator[tuple[int, Any, str | None]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line), None
            except ValueError as error:
                yield number, None, str(error)
            except RecursionError:
                yield number, None, "nested too deeply"


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, Any, str | None]]:
    try:
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline=""), strict=True), start=1):
            if None in row or None in row.values():
                yield number, None, "has more or fewer cells than the header"
            else:
                yield number, nested(row), None
    except csv.Error as error:
        raise ValueError(f"{name} is no CSV: {error}") from error


def _parquet_rows(data: bytes, name: str) -> Iterator[tuple[int, Any, str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} is no Parquet file: {error}") from error
    for number, row in enumerate(rows, start=1):
        yield number, nested(row), None


def nested(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a table's row without empty cells, `dials.sigma` as `sigma` in `dials`."""
    values: dict[str, Any] = {}
    for column, value in row.items():
        if value is None or value == "":
            continue
        *above, last = column.split(".")
        place = values
        for part in above:
            below = place.setdefault(part, {})
            if not isinstance(below, dict):
                below = place[part] = {}
            place = below
        place[last] = nested(value) if isinstance(value, dict) else value
    return values
