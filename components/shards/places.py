"""Where the tars of a set lie: in a folder, or below a URL that fsspec reaches."""

from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

AHEAD = 8 * 2**20  # bytes that are asked of a store at once: a tar is read from its beginning to its end


def name_of(place: str) -> str:
    """Returns the last part of a path or URL."""
    return place.rsplit("/", 1)[-1]


def sizes_in(folder: str, names: Iterable[str]) -> dict[str, int]:
    """Returns the bytes of those of the files that exist."""
    if "://" not in folder:
        paths = ((name, Path(folder) / name) for name in names)
        return {name: path.stat().st_size for name, path in paths if path.is_file()}
    import fsspec

    filesystem, root = fsspec.url_to_fs(folder, use_listings_cache=False)
    try:
        listed = {name_of(one["name"]): one for one in filesystem.ls(root, detail=True)}
    except FileNotFoundError:
        return {}
    return {name: int(listed[name]["size"] or 0) for name in names if name in listed}


def open_shard(place: str) -> IO[bytes]:
    """Opens a tar for reading from its beginning."""
    if "://" not in place:
        return Path(place).open("rb")
    import fsspec

    filesystem, path = fsspec.url_to_fs(place, use_listings_cache=False)
    stream = filesystem.open(path, "rb", block_size=AHEAD, cache_type="readahead")
    return cast("IO[bytes]", stream)
