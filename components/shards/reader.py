"""Shards -> batches that are a pure function of (seed, step): a resumed run sees what it would have seen.

Two paths, chosen by the size of the split's tars and nothing else:
- up to `memory_limit_mb` everything is decoded once and kept; each epoch is one permutation of all
  samples;
- above it the tars are streamed by webdataset: the shards are permuted, then `detshuffle` mixes a window of
  samples.
Either way each epoch holds each sample exactly once, and a batch may span two epochs. All ranks walk the same
order and decode only their own part; when streaming, every rank reads every shard's bytes.

A set lies in a folder, or below a URL that fsspec reaches (`s3://...`): its tars are read where they are.

A shard that is damaged or missing is an error that names it (`DamagedShard`). The reader may be told to go on
without it: its samples keep their places in the order and are passed over, so the others come as they would
have, none twice. Where batches no longer end at multiples of their size, `position` says where they do. The
same holds for samples that were forgotten (`ShardFile.gaps`).

A sample may bring fields of another photo of the same person (`others`): of the next one in its shard, for
prepared photos of a person lie together but for a few at the edges of shards.

Left out: prefetching, augmentation, conversion to torch.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from components.core import ShardManifest, derive_seed
from components.shards.config import ReaderConfig
from components.shards.places import name_of, open_shard, sizes_in
from components.shards.schema import FIELD_NAMES, META, Sample, decode

OTHER = "other."
"""Before the names of fields that come from another photo of the person."""


class DamagedShard(ValueError):
    """A shard that cannot be read, or that is not what the manifest says.

    Attributes:
        names: The shards.
    """

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message, names)  # both: the error travels between processes
        self.names = names

    def __str__(self) -> str:
        return str(self.args[0])


class ShardReader:
    """Batches of one split.

    Attributes:
        places: Samples of an epoch, those left out and those forgotten included.
        position: Place in the endless order of samples after the batch that was given last.
        in_memory: Which of the two paths is taken. Whoever resumes a run whose shards have changed in size
            sets it to what it was.

    Args:
        manifest: The shard set.
        split: "train", "validation" or "heldout".
        batch_size: Samples of the global batch, over all ranks.
        seed: Root of the order.
        rank: This worker.
        world_size: Number of workers; must divide `batch_size`.
        fields: Fields to decode, None for all; `meta.json` and "__key__" always come along.
        others: Those of `fields` that are also given of another photo of the person, as "other.<field>"; who
            has no other photo in the shard stands for himself.
        config: Limit of memory and window of shuffling.
        left_out: Names of shards to go on without.

    Raises:
        ValueError: The split is empty, or the sizes do not fit.
        DamagedShard: A shard is missing.
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
        others: Iterable[str] = (),
        config: ReaderConfig | None = None,
        left_out: Iterable[str] = (),
    ) -> None:
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size {batch_size} must be a multiple of world_size {world_size},"
                f" and rank {rank} must be below it"
            )
        self._left_out = frozenset(left_out)
        self.paths = shard_paths(manifest, split, self._left_out)
        self._shards = {s.name: s for s in manifest.shards if s.split == split and s.places}
        self.places = sum(shard.places for shard in self._shards.values())
        if not any(s.samples for s in self._shards.values() if s.name not in self._left_out):
            raise ValueError(f"every shard of split {split!r} in {manifest.folder} is left out")
        self.position = 0
        self._config = config or ReaderConfig()
        limit = self._config.memory_limit_mb * 2**20
        sizes = sizes_in(manifest.folder, map(name_of, self.paths))
        self.in_memory = sum(sizes.values()) <= limit
        self._fields, self._others = None if fields is None else tuple(fields), tuple(others)
        self._batch_size, self._seed = batch_size, seed
        share = batch_size // world_size
        self._mine = slice(rank * share, (rank + 1) * share)
        self._kept: list[Sample | None] | None = None

    def batches(self, start_step: int = 0, position: int | None = None) -> Iterator[dict[str, Any]]:
        """Yields this rank's part of the global batches `start_step`, `start_step + 1`, ... without end.

        Each is field name -> stacked array (batch_size / world_size, ...), "meta.json" -> list of mappings
        and "__key__" -> list of keys.

        Args:
            start_step: First global batch.
            position: Where the reader stood before it; None where no shard has been left out.

        Raises:
            DamagedShard: A shard is damaged, missing, or holds another number of samples than promised.
        """
        samples = self._order(start_step * self._batch_size if position is None else position)
        while True:
            batch = list(islice(samples, self._batch_size))
            yield collate([self._decoded(sample) for sample in batch[self._mine]])

    def _order(self, start: int) -> Iterator[Sample]:
        """Yields the endless sequence of samples from position `start` on, without those left out."""
        self.position = start
        while True:
            epoch, first = divmod(self.position, self.places)
            for sample in islice(self._epoch(epoch), first, None):
                self.position += 1
                if sample is not None:
                    yield sample

    def _epoch(self, epoch: int) -> Iterator[Sample | None]:
        if not self.in_memory:
            return self._stream(epoch)
        if self._kept is None:
            self._kept = [sample for path in self.paths for sample in self._in_memory(path)]
        return (self._kept[i] for i in permutation(self.places, self._seed, "samples", epoch))

    def _in_memory(self, path: str) -> list[Sample | None]:
        shard = [raw if raw is None else decoded(raw, self._fields) for raw in self._raw(path)]
        give_others([sample for sample in shard if sample is not None], self._others)
        return shard

    def _stream(self, epoch: int) -> Iterator[Sample | None]:
        import webdataset

        paths = [self.paths[i] for i in permutation(len(self.paths), self._seed, "shards", epoch)]
        window = self._config.shuffle_window
        mixed = webdataset.detshuffle(
            window, window, seed=derive_seed(self._seed, "samples", epoch), epoch=-1
        )
        yield from mixed.run(raw for path in paths for raw in self._with_others(path))

    def _with_others(self, path: str) -> Iterable[Sample | None]:
        """The encoded samples of a shard, which is read whole only where others are asked for."""
        if not self._others:
            return self._raw(path)
        shard = list(self._raw(path))
        give_others([raw for raw in shard if raw is not None], self._others)
        return shard

    def _raw(self, path: str) -> Iterator[Sample | None]:
        """Yields the encoded samples of a shard; a None for each of one that is left out or forgotten."""
        name = name_of(path)
        shard = self._shards[name]
        if name in self._left_out:
            yield from [None] * shard.places
            return
        gaps, found = frozenset(shard.gaps), read_raw([path], self._fields)
        for place in range(shard.places):
            if place in gaps:
                yield None
            elif (raw := next(found, None)) is not None:
                yield raw
            else:
                held = place - sum(gap < place for gap in gaps)
                raise _miscounted(path, str(held), shard.samples)
        if next(found, None) is not None:
            raise _miscounted(path, f"more than {shard.samples}", shard.samples)

    def _decoded(self, sample: Sample) -> Sample:
        if self.in_memory:
            return sample
        own, other = decoded(sample, self._fields), {}
        if self._others:
            other = decoded(sample | {name: sample[OTHER + name] for name in self._others}, self._others)
        return own | {OTHER + name: other[name] for name in self._others}


def give_others(shard: list[Sample], fields: tuple[str, ...]) -> None:
    """Gives each sample of a shard, encoded or decoded, these fields of the next photo of the same person."""
    people: dict[str, list[Sample]] = {}
    for sample in shard if fields else ():
        meta = sample[META] if isinstance(sample[META], dict) else json.loads(sample[META])
        people.setdefault(str(meta["person"]), []).append(sample)
    for photos in people.values():
        for sample, other in zip(photos, photos[1:] + photos[:1], strict=True):
            sample |= {OTHER + name: other[name] for name in fields}


def _miscounted(path: str, found: str, promised: int) -> DamagedShard:
    return DamagedShard(
        f"shard {path} is damaged: found {found} samples, the manifest says {promised}", (name_of(path),)
    )


def decoded(raw: dict[str, Any], fields: tuple[str, ...] | None) -> Sample:
    """Decodes a sample; what cannot be decoded is a fault of its shard, which is named."""
    try:
        return decode(raw, fields)
    except Exception as error:  # bytes that are not what their name says raise whatever their decoder does
        path = raw.get("__url__", "?")
        raise DamagedShard(f"shard {path} is damaged: {error}", (name_of(path),)) from error


def permutation(length: int, seed: int, what: str, epoch: int) -> list[int]:
    """Returns the order of `length` things in an epoch, a pure function of its arguments."""
    order = np.random.Generator(np.random.PCG64(derive_seed(seed, what, epoch))).permutation(length)
    return [int(i) for i in order]


def load_split(manifest: ShardManifest, split: str, fields: Iterable[str] | None = None) -> list[Sample]:
    """Returns all samples of a split, decoded, in the order of the shards. For sets that fit in memory."""
    chosen = None if fields is None else tuple(fields)
    return [decoded(raw, chosen) for raw in read_raw(shard_paths(manifest, split), chosen)]


def shard_paths(manifest: ShardManifest, split: str, left_out: frozenset[str] = frozenset()) -> list[str]:
    """Returns paths or URLs of the tars of a split, in the manifest's order; those left out need not exist.

    Raises:
        ValueError: The split has no samples.
        DamagedShard: A tar is missing.
    """
    shards = [shard for shard in manifest.shards if shard.split == split and shard.places]
    names = [shard.name for shard in shards]
    if not any(shard.samples for shard in shards):
        held = {name: count for name, count in manifest.samples.items() if count}
        raise ValueError(f"the shard set {manifest.folder} has no samples of split {split!r}; it has {held}")
    sizes = sizes_in(manifest.folder, names)
    missing = [name for name in names if name not in left_out and name not in sizes]
    if missing:
        raise DamagedShard(
            f"{len(missing)} shards are missing in {manifest.folder}: {', '.join(missing[:5])}",
            tuple(missing),
        )
    return [f"{manifest.folder.rstrip('/')}/{name}" for name in names]


def read_raw(paths: Sequence[Path | str], fields: tuple[str, ...] | None = None) -> Iterator[dict[str, Any]]:
    """Yields encoded samples (field name -> bytes) of the tars in order, reading only the wanted fields.

    Raises:
        DamagedShard: A tar is damaged or missing.
    """
    from webdataset import tariterators

    wanted = {*FIELD_NAMES, META} if fields is None else {*fields, META}
    for path in paths:
        try:
            with open_shard(str(path)) as stream:
                source = [{"url": str(path), "stream": stream}]
                files = tariterators.tar_file_expander(
                    source, select_files=lambda name: name.partition(".")[2] in wanted
                )
                yield from tariterators.group_by_keys(files)
        except (OSError, EOFError, ValueError, tarfile.TarError) as error:
            raise DamagedShard(f"shard {path} is damaged: {error}", (name_of(str(path)),)) from error


def collate(samples: list[Sample]) -> dict[str, Any]:
    """Stacks samples into one batch: arrays are stacked, everything else becomes a list."""
    batch: dict[str, Any] = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        batch[name] = np.stack(values) if isinstance(values[0], np.ndarray) else values
    return batch
