"""Shards of random but consistent samples: features and latents belong to a person."""

from pathlib import Path

import numpy as np

from components.core import ShardManifest
from components.face import ARCFACE_TEMPLATE_XY, FaceConfig, IdentityEncoder, identity_onnx_path
from components.shards import ShardWriter, encode

SPLITS = {"train": 12, "heldout": 4}
VIEWS = 2


def made_shards(
    folder: Path, base: Path, *, splits: dict[str, int] | None = None, layers: int = 3
) -> ShardManifest:
    """Writes shards that fit `tiny_base`: `splits` names people by split, each with `VIEWS` photos."""
    from components.model import ModelConfig, load_extractor, load_vae

    vae = load_vae(ModelConfig(base=str(base)))
    extractor = load_extractor(ModelConfig(base=str(base)))
    side = extractor.size
    channels, latent_side = vae.config.latent_channels, side // 2 ** (len(vae.config.block_out_channels) - 1)
    sizes = (
        side,
        channels,
        latent_side,
        extractor.shape,
        IdentityEncoder(identity_onnx_path(FaceConfig(), base)).size,
    )
    rng, shards, counts = np.random.default_rng(0), [], {}
    for split, people in (splits or SPLITS).items():
        with ShardWriter(folder, split, max_samples=16) as writer:
            for person in range(people):
                for view in range(VIEWS):
                    writer.write(encode(_sample(rng, split, person, view, *sizes)))
        shards += writer.shards
        counts[split] = people * VIEWS
    return ShardManifest(
        folder=str(folder),
        shards=tuple(shards),
        samples=counts,
        rejects=0,
        rejects_file="rejects.parquet",
        feature_shape=extractor.shape,
        latent_shape=(channels, latent_side, latent_side),
    )


def _sample(rng, split, person, view, side, channels, latent_side, feature_shape, identity_size):
    own = np.random.default_rng([person, len(split)])
    colour = own.normal(size=(channels, 1, 1))
    mean = colour + 0.3 * rng.normal(size=(channels, latent_side, latent_side))
    features = own.normal(size=feature_shape) + 0.1 * rng.normal(size=feature_shape)
    identity = own.normal(size=identity_size)
    key = f"{len(split):04x}{person:02x}{view:02x}-0"
    landmarks = np.array(ARCFACE_TEMPLATE_XY) * side / 112
    return {
        "__key__": key,
        "photo.png": rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
        "mask.png": np.full((side, side), 255, np.uint8),
        "target.png": rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
        "features.npy": features.astype(np.float16),
        "latents.npy": np.concatenate([mean, np.full_like(mean, 0.05)]).astype(np.float16),
        "identity.npy": (identity / np.linalg.norm(identity)).astype(np.float32),
        "meta.json": {
            "person": f"{split}-{person}",
            "split": split,
            "source": "made",
            "file": f"{key}.png",
            "sha256": key,
            "width": side,
            "height": side,
            "bbox_xyxy": [0, 0, side, side],
            "landmarks_xy": landmarks.tolist(),
            "target_landmarks_xy": landmarks.tolist(),
            "score": 1.0,
        },
    }
