"""Does a shard set still hold what its manifest says? Every fault is named; nothing is repaired here."""

from collections import Counter
from pathlib import Path

from components.core import ShardFile, ShardManifest, sha256_file
from components.shards.reader import read_raw
from components.shards.schema import Sample, check, decode


def shard_is_intact(folder: Path, shard: ShardFile) -> bool:
    """Tells whether the tar is there and its checksum is the recorded one."""
    path = folder / shard.name
    return path.is_file() and sha256_file(path) == shard.sha256


def open_manifest(path: Path) -> ShardManifest:
    """Returns the manifest of a set, wherever it was moved to.

    Args:
        path: `manifest.json`, or the folder that holds it.

    Raises:
        ValueError: There is none, or it is another record.
    """
    file = path / "manifest.json" if path.is_dir() else path
    return ShardManifest.load(file).model_copy(update={"folder": str(file.parent)})


def verify_shards(manifest: ShardManifest) -> list[str]:
    """Checks checksums, counts, doubled keys, every field of every sample, and files that nobody named.

    Returns:
        One line per fault; empty if the set is whole.
    """
    faults: list[str] = []
    seen: dict[str, str] = {}
    sizes = _declared_sizes(manifest)
    for shard in manifest.shards:
        faults += _verify_one(Path(manifest.folder), shard, seen, sizes)
    return faults + _set_faults(manifest)


def _declared_sizes(manifest: ShardManifest) -> dict[str, int]:
    """The sizes that the manifest states: even the first sample of a set is held against something."""
    features = dict(zip(("m", "T", "D"), manifest.feature_shape, strict=True))
    channels, height, width = manifest.latent_shape
    return features | {"2C": 2 * channels, "h": height, "w": width}


def _set_faults(manifest: ShardManifest) -> list[str]:
    by_split: Counter[str] = Counter()
    for shard in manifest.shards:
        by_split[shard.split] += shard.samples
    faults = [
        f"split {split}: the shards name {by_split[split]} samples, the manifest {count}"
        for split, count in manifest.samples.items()
        if by_split[split] != count
    ]
    names = [shard.name for shard in manifest.shards]
    faults += [f"{name}: named twice in the manifest" for name, count in Counter(names).items() if count > 1]
    there = sorted(path.name for path in Path(manifest.folder).glob("*.tar"))
    return faults + [f"{name}: not named in the manifest" for name in there if name not in set(names)]


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
