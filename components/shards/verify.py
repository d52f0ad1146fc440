"""Does a shard set still hold what its manifest says? Every fault is named; nothing is repaired here."""

from pathlib import Path

from components.core import ShardFile, ShardManifest, sha256_file
from components.shards.reader import read_raw
from components.shards.schema import Sample, check, decode


def shard_is_intact(folder: Path, shard: ShardFile) -> bool:
    """Tells whether the tar is there and its checksum is the recorded one."""
    path = folder / shard.name
    return path.is_file() and sha256_file(path) == shard.sha256


def verify_shards(manifest: ShardManifest) -> list[str]:
    """Checks checksums, counts, doubled keys and every field of every sample.

    Returns:
        One line per fault; empty if the set is whole.
    """
    faults: list[str] = []
    seen: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for shard in manifest.shards:
        faults += _verify_one(Path(manifest.folder), shard, seen, sizes)
    return faults


def _verify_one(folder: Path, shard: ShardFile, seen: dict[str, str], sizes: dict[str, int]) -> list[str]:
    path = folder / shard.name
    if not path.is_file():
        return [f"{shard.name}: missing"]
    faults = [] if shard_is_intact(folder, shard) else [f"{shard.name}: checksum differs from the manifest"]
    count = 0
    try:
        for raw in read_raw([path]):
            count += 1
            faults += [f"{shard.name}: {fault}" for fault in _sample_faults(raw, shard.name, seen, sizes)]
    except ValueError as error:
        faults.append(f"{shard.name}: {error}")
    if count != shard.samples:
        faults.append(f"{shard.name}: {count} samples, expected {shard.samples}")
    return faults


def _sample_faults(raw: Sample, shard_name: str, seen: dict[str, str], sizes: dict[str, int]) -> list[str]:
    key = raw["__key__"]
    faults = [f"sample {key} is also in {seen[key]}"] if key in seen else []
    seen[key] = shard_name
    try:
        sizes.update(check(decode(raw), sizes))
    except ValueError as error:
        faults.append(str(error))
    return faults
