"""Samples -> one tar with its checksum. The same samples always give the same bytes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.core import ShardFile, atomic_path, sha256_file


def write_shard(folder: Path, name: str, split: str, encoded_samples: Iterable[dict[str, Any]]) -> ShardFile:
    """Writes one WebDataset tar, under a temporary name until it is whole.

    Args:
        folder: The shard set's folder.
        name: File name within it, e.g. "train-000003.tar".
        split: "train", "validation" or "heldout".
        encoded_samples: Samples as `schema.encode` gives them; each key once.

    Raises:
        ValueError: A key comes twice, or holds a dot (webdataset would cut it there).
    """
    import webdataset

    seen: set[str] = set()
    with atomic_path(folder / name) as temporary:
        with temporary.open("wb") as file:
            # Fixed owner and time: the checksum then depends on the samples alone.
            with webdataset.TarWriter(file, encoder=False, mtime=0) as tar:  # type: ignore[arg-type]
                for sample in encoded_samples:
                    _check_key(sample["__key__"], seen)
                    tar.write(sample)
        checksum = sha256_file(temporary)
    return ShardFile.parse(
        {"name": name, "split": split, "samples": len(seen), "sha256": checksum}, source=name
    )


class ShardWriter:
    """Spreads the samples of one split over numbered tars of at most `max_samples`; use as a context manager.

    Args:
        folder: Where the tars go.
        split: "train", "validation" or "heldout".
        max_samples: Samples a tar.
    """

    def __init__(self, folder: Path, split: str, max_samples: int = 512) -> None:
        self.folder, self.split, self.max_samples = folder, split, max_samples
        self.shards: list[ShardFile] = []
        self._pending: list[dict[str, Any]] = []

    def write(self, encoded: dict[str, Any]) -> None:
        """Adds one encoded sample; a full tar is written at once."""
        self._pending.append(encoded)
        if len(self._pending) >= self.max_samples:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending."""
        if self._pending:
            name = f"{self.split}-{len(self.shards):06d}.tar"
            self.shards.append(write_shard(self.folder, name, self.split, self._pending))
            self._pending = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type | None, *rest: object) -> None:
        if kind is None:
            self.flush()


def _check_key(key: str, seen: set[str]) -> None:
    if key in seen:
        raise ValueError(f"sample {key} comes twice in one shard")
    if "." in key:
        raise ValueError(f"sample key {key!r} holds a dot; keys must not")
    seen.add(key)
