"""What one photo, one training sample and one picture cost: counted and measured, for `flows/scale.py`.

    python -m flows.scale_rates > infra/scale.json

Operations are counted on the real architectures on torch's `meta` device, so nothing large is loaded. Seconds
are processor time of one core of this machine, bytes those of files that this writes.
"""

import io
import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

UNET_21: dict[str, Any] = {
    "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280), "sample_size": 64,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"), "layers_per_block": 2,
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3), "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
}  # fmt: skip
"""Stable Diffusion 2.1, as its public config states it; 64 latents = 512 pixels, as in the sd21 profile."""

VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip

VIT_H: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14, "projection_dim": 1024,
}  # fmt: skip
TOKENS, LAYERS, TOKEN_WIDTH = 257, 5, 1280  # of ViT-H, and the paper's m


def count(work: Callable[[], Any]) -> float:
    """Returns the floating-point operations of some work on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def counted() -> dict[str, float]:
    """Operations of the parts of Stable Diffusion 2.1 at 512 pixels, for one sample."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**UNET_21)
        vae: Any = AutoencoderKL(**VAE)
        tower: Any = CLIPVisionModel(CLIPVisionConfig(**VIT_H))
        latents, step = torch.empty(1, 4, 64, 64), torch.ones(1, dtype=torch.int64)
        text, pixels = torch.empty(1, 77, 1024), torch.empty(1, 3, 512, 512)
        crop = torch.empty(1, 3, 224, 224)
    for part in (unet, vae, tower):
        part.requires_grad_(False)
    unet.conv_in.requires_grad_(True)  # gradients run through all of the frozen UNet, to its first adapters
    whole = count(lambda: unet(latents, step, text).sample.sum().backward())
    with torch.no_grad():
        return {
            "unet_forward": count(lambda: unet(latents, step, text)),
            "unet_training": whole,
            "vae_encode": count(lambda: vae.encode(pixels)),
            "vae_decode": count(lambda: vae.decode(latents)),
            "image_encoder": count(lambda: tower(crop)),
            "unet_parameters": float(sum(parameter.numel() for parameter in unet.parameters())),
        }


def measured() -> dict[str, float]:
    """Core seconds and bytes of a photo's way into a shard and out of it, at 512 pixels."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import cv2

    from components.face import FaceConfig, load_detector
    from components.portraits.world import portrait

    cv2.setNumThreads(1)
    photo = cv2.resize(portrait(0, 0).image_uint8, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(photo.astype(np.int16) + np.random.default_rng(0).normal(0, 6, photo.shape), 0, 255)
    jpeg = cv2.imencode(".jpg", noisy.astype(np.uint8))[1].tobytes()
    detector = load_detector(FaceConfig())

    def prepare() -> bytes:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        detector(image)
        target = cv2.resize(image, (512, 512), interpolation=cv2.INTER_AREA)
        return cv2.imencode(".png", target)[1].tobytes()

    features = np.zeros((LAYERS, 2, TOKEN_WIDTH), np.float16)
    latents = np.random.default_rng(0).normal(size=(8, 64, 64)).astype(np.float16)

    def load() -> None:
        np.load(io.BytesIO(packed))
        np.load(io.BytesIO(small))

    packed, small = _npy(latents), _npy(features)
    return {
        "prepare_core_s": _core_seconds(prepare, 10),
        "load_core_s": _core_seconds(load, 500),
        "photo_bytes": float(len(jpeg)),
        "pictures_bytes": float(2 * len(prepare())),
        "latents_bytes": float(len(packed)),
        "pooled_features_bytes": float(len(small)),
        "all_features_bytes": float(LAYERS * TOKENS * TOKEN_WIDTH * 2),
    }


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _core_seconds(work: Callable[[], Any], times: int) -> float:
    work()
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


if __name__ == "__main__":
    print(
        json.dumps(
            {name: float(f"{value:.4g}") for name, value in (counted() | measured()).items()}, indent=2
        )
    )
