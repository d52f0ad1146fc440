"""Shards -> batches that are a pure function of (seed, step): a resumed run sees what it would have seen.

Two paths, chosen by the size of the split's tars and nothing else:
- up to `memory_limit_mb` everything is decoded once and kept; each epoch is one permutation of all
  samples;
- above it the tars are streamed by webdataset: the shards are permuted, then `detshuffle` mixes a window of
  samples.
Either way each epoch holds each sample exactly once, and a batch may span two epochs. All ranks walk the same
order and decode only their own part; when streaming, every rank reads every shard's bytes.

Left out: prefetching, augmentation, conversion to torch.
"""

import tarfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from components.core import ShardManifest, derive_seed
from components.shards.config import ReaderConfig
from components.shards.schema import FIELD_NAMES, META, Sample, decode


class ShardReader:
    """Batches of one split.

    Args:
        manifest: The shard set.
        split: "train", "validation" or "heldout".
        batch_size: Samples of the global batch, over all ranks.
        seed: Root of the order.
        rank: This worker.
        world_size: Number of workers; must divide `batch_size`.
        fields: Fields to decode, None for all; `meta.json` and "__key__" always come along.
        config: Limit of memory and window of shuffling.

    Raises:
        ValueError: The split is empty, a shard is missing, or the sizes do not fit.
    """

    def __init__(
        self,
        manifest: ShardManifest,
        split: str,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        fields: Iterable[str] | None = None,
        config: ReaderConfig | None = None,
    ) -> None:
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size {batch_size} must be a multiple of world_size {world_size},"
                f" and rank {rank} must be below it"
            )
        self.paths = shard_paths(manifest, split)
        self.samples = sum(shard.samples for shard in manifest.shards if shard.split == split)
        self._config = config or ReaderConfig()
        limit = self._config.memory_limit_mb * 2**20
        self.in_memory = sum(path.stat().st_size for path in self.paths) <= limit
        self._fields = None if fields is None else tuple(fields)
        self._batch_size, self._seed = batch_size, seed
        share = batch_size // world_size
        self._mine = slice(rank * share, (rank + 1) * share)
        self._kept: list[Sample] | None = None

    def batches(self, start_step: int = 0) -> Iterator[dict[str, Any]]:
        """Yields this rank's part of the global batches `start_step`, `start_step + 1`, ... without end.

        Each is field name -> stacked array (batch_size / world_size, ...), "meta.json" -> list of mappings
        and "__key__" -> list of keys.

        Raises:
            ValueError: A shard is damaged, or holds another number of samples than the manifest says.
        """
        samples = self._order(start_step * self._batch_size)
        while True:
            yield collate(
                [self._decoded(sample) for sample in list(islice(samples, self._batch_size))[self._mine]]
            )

    def _order(self, start: int) -> Iterator[Sample]:
        """Yields the endless sequence of samples from position `start` on."""
        epoch, position = divmod(start, self.samples)
        while True:
            yield from islice(self._epoch(epoch), position, None)
            epoch, position = epoch + 1, 0

    def _epoch(self, epoch: int) -> Iterator[Sample]:
        if self.in_memory:
            if self._kept is None:
                self._kept = [decode(raw, self._fields) for raw in read_raw(self.paths, self._fields)]
                self._check_count(len(self._kept))
            return (self._kept[i] for i in permutation(self.samples, self._seed, "samples", epoch))
        return self._stream(epoch)

    def _stream(self, epoch: int) -> Iterator[Sample]:
        import webdataset

        paths = [self.paths[i] for i in permutation(len(self.paths), self._seed, "shards", epoch)]
        window = self._config.shuffle_window
        mixed = webdataset.detshuffle(
            window, window, seed=derive_seed(self._seed, "samples", epoch), epoch=-1
        )
        count = 0
        for raw in mixed.run(read_raw(paths, self._fields)):
            count += 1
            yield raw
        self._check_count(count)

    def _decoded(self, sample: Sample) -> Sample:
        return sample if self.in_memory else decode(sample, self._fields)

    def _check_count(self, found: int) -> None:
        if found != self.samples:
            raise ValueError(
                f"the shards hold {found} samples, the manifest says {self.samples}: prepare them again"
            )


def permutation(length: int, seed: int, what: str, epoch: int) -> list[int]:
    """Returns the order of `length` things in an epoch, a pure function of its arguments."""
    order = np.random.Generator(np.random.PCG64(derive_seed(seed, what, epoch))).permutation(length)
    return [int(i) for i in order]


def load_split(manifest: ShardManifest, split: str, fields: Iterable[str] | None = None) -> list[Sample]:
    """Returns all samples of a split, decoded, in the order of the shards. For sets that fit in memory."""
    chosen = None if fields is None else tuple(fields)
    return [decode(raw, chosen) for raw in read_raw(shard_paths(manifest, split), chosen)]


def shard_paths(manifest: ShardManifest, split: str) -> list[Path]:
    """Returns the tars of a split, in the order of the manifest.

    Raises:
        ValueError: The split has no samples, or a tar is missing.
    """
    paths = [Path(manifest.folder) / s.name for s in manifest.shards if s.split == split and s.samples]
    if not paths:
        held = {name: count for name, count in manifest.samples.items() if count}
        raise ValueError(f"the shard set {manifest.folder} has no samples of split {split!r}; it has {held}")
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{len(missing)} shards are missing in {manifest.folder}: {', '.join(missing[:5])}")
    return paths


def read_raw(paths: list[Path], fields: tuple[str, ...] | None = None) -> Iterator[dict[str, Any]]:
    """Yields encoded samples (field name -> bytes) of the tars in order, reading only the wanted fields.

    Raises:
        ValueError: A tar is damaged.
    """
    from webdataset import tariterators

    wanted = {*FIELD_NAMES, META} if fields is None else {*fields, META}
    for path in paths:
        try:
            yield from tariterators.tarfile_samples(
                [{"url": str(path)}], select_files=lambda name: name.partition(".")[2] in wanted
            )
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            raise ValueError(f"shard {path} is damaged: {error}") from error


def collate(samples: list[Sample]) -> dict[str, Any]:
    """Stacks samples into one batch: arrays are stacked, everything else becomes a list."""
    batch: dict[str, Any] = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        batch[name] = np.stack(values) if isinstance(values[0], np.ndarray) else values
    return batch
