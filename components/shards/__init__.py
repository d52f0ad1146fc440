"""Prepared samples on disk: one declared schema, a writer, a deterministic resumable reader, a verifier."""

from components.shards.config import ReaderConfig
from components.shards.reader import DamagedShard, ShardReader, load_split
from components.shards.schema import FIELDS, Sample, check, decode, encode
from components.shards.verify import open_manifest, shard_is_intact, verify_shards
from components.shards.writer import ShardWriter, write_shard

__all__ = [
    "FIELDS",
    "DamagedShard",
    "ReaderConfig",
    "Sample",
    "ShardReader",
    "ShardWriter",
    "check",
    "decode",
    "encode",
    "load_split",
    "open_manifest",
    "shard_is_intact",
    "verify_shards",
    "write_shard",
]
