"""Prepared samples on disk: one declared schema, a writer, a deterministic resumable reader, a verifier."""

from components.shards.config import ReaderConfig
from components.shards.forget import (
    ForgettingPlan,
    ForgottenSample,
    close_plan,
    find_samples,
    is_one_of,
    open_plan,
    plan_forgetting,
    put_in_place,
    sets_below,
    without_forgotten,
)
from components.shards.reader import OTHER, DamagedShard, ShardReader, load_split
from components.shards.schema import FIELDS, Sample, check, decode, encode
from components.shards.verify import open_manifest, shard_is_intact, verify_shards
from components.shards.writer import ShardWriter, write_shard

__all__ = [
    "FIELDS",
    "OTHER",
    "DamagedShard",
    "ForgettingPlan",
    "ForgottenSample",
    "ReaderConfig",
    "Sample",
    "ShardReader",
    "ShardWriter",
    "check",
    "close_plan",
    "decode",
    "encode",
    "find_samples",
    "is_one_of",
    "load_split",
    "open_manifest",
    "open_plan",
    "plan_forgetting",
    "put_in_place",
    "sets_below",
    "shard_is_intact",
    "verify_shards",
    "without_forgotten",
    "write_shard",
]
