"""Small samples that obey the schema, and shard sets made of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.core import ShardFile, ShardManifest
from components.shards import Sample, encode, write_shard


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    def make(number: int, side: int = 8) -> Sample:
        rng = np.random.default_rng(number)
        identity = rng.normal(size=6).astype(np.float32)
        return {
            "__key__": f"{number:08x}-0",
            "photo.png": rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
            "mask.png": rng.choice(np.array([0, 255], np.uint8), (side, side)),
            "target.png": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            "features.npy": rng.normal(size=(3, 2, 5)).astype(np.float16),
            "latents.npy": rng.normal(size=(8, 4, 4)).astype(np.float16),
            "identity.npy": identity / np.linalg.norm(identity),
            "meta.json": {
                "person": f"p{number}",
                "split": "train",
                "source": "test",
                "file": f"später {number}.png",
                "sha256": "0" * 64,
                "width": 20,
                "height": 30,
                "bbox_xyxy": [1.0, 2.0, 11.5, 12.0],
                "landmarks_xy": [[0.0, 1.0]] * 5,
                "target_landmarks_xy": [[0.0, 1.0]] * 5,
                "score": 0.9,
                "number": number,
            },
        }

    return make


@pytest.fixture
def make_set(tmp_path: Path, make_sample: Callable[..., Sample]) -> Callable[..., ShardManifest]:
    """Returns a function that writes `counts` samples into that many tars of the split "train"."""

    def make(*counts: int) -> ShardManifest:
        shards: list[ShardFile] = []
        start = 0
        for number, count in enumerate(counts):
            samples = [encode(make_sample(i)) for i in range(start, start + count)]
            shards.append(write_shard(tmp_path, f"train-{number:06d}.tar", "train", samples))
            start += count
        return ShardManifest(
            folder=str(tmp_path),
            shards=tuple(shards),
            samples={"train": start, "validation": 0, "heldout": 0},
            rejects=0,
            rejects_file="",
            feature_shape=(3, 2, 5),
            latent_shape=(4, 4, 4),
        )

    return make
