"""How good pictures are as pictures: FID and KID against real held-out crops, and sharpness.

torchmetrics does the arithmetic. Features are Inception's where its weights are named as an ONNX file
(`evaluation.inception_onnx`), else those of the configured CLIP's image tower; the report says which, because
figures by different features are not comparable. With tens of pictures FID leans upwards: compare it with the
figure of another run on as many pictures, or look at KID, which does not.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.core import StrictConfig

Pictures = Sequence[NDArray[np.uint8]]
Features = Callable[[Pictures], NDArray[np.float64]]


class Quality(StrictConfig):
    """Figures of quality.

    Attributes:
        features: What FID and KID look through.
        fid: Fréchet distance to real crops.
        fid_base: The same of the base model alone, on fewer pictures.
        kid: Unbiased kernel distance, mean over subsets.
        kid_base: The same of the base model alone.
        real: Number of real crops.
        generated: Number of generated pictures.
        base: Number of pictures of the base model alone.
        sharpness: Mean standard deviation of the Laplacian of generated pictures, in grey levels.
        sharpness_real: The same of real crops.
    """

    features: str
    fid: float | None
    fid_base: float | None
    kid: float | None
    kid_base: float | None
    real: int
    generated: int
    base: int
    sharpness: float
    sharpness_real: float


def measure_quality(
    real: Pictures, generated: Pictures, base: Pictures, features: Features, name: str, seed: int
) -> Quality:
    """Returns the figures; pictures are (H, W, 3) uint8 RGB of one size.

    Args:
        real: Real held-out crops.
        generated: All generated pictures.
        base: Pictures of the base model alone.
        features: Pictures to (N, D).
        name: What to call the features.
        seed: Of the subsets that KID draws.
    """
    seen = {
        key: features(list(group)) for key, group in (("real", real), ("made", generated), ("base", base))
    }
    return Quality(
        features=name,
        fid=frechet_distance(seen["real"], seen["made"]),
        fid_base=frechet_distance(seen["real"], seen["base"]),
        kid=kernel_distance(seen["real"], seen["made"], seed),
        kid_base=kernel_distance(seen["real"], seen["base"], seed),
        real=len(real),
        generated=len(generated),
        base=len(base),
        sharpness=sharpness(generated),
        sharpness_real=sharpness(real),
    )


def frechet_distance(real_ND: NDArray, made_ND: NDArray) -> float | None:
    """Returns FID between two sets of features by torchmetrics; None for fewer than two pictures."""
    if min(len(real_ND), len(made_ND)) < 2:
        return None
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_as_they_are(real_ND.shape[1]))
    return _filled(metric, real_ND, made_ND)


def kernel_distance(real_ND: NDArray, made_ND: NDArray, seed: int) -> float | None:
    """Returns KID (mean over 20 subsets) by torchmetrics; None for fewer than four pictures."""
    smallest = min(len(real_ND), len(made_ND))
    if smallest < 4:
        return None
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    metric = KernelInceptionDistance(
        feature=_as_they_are(real_ND.shape[1]), subsets=20, subset_size=min(100, smallest)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return _filled(metric, real_ND, made_ND)


def _as_they_are(width: int) -> Any:
    """A module that hands features through: they are made before, once for all metrics."""
    import torch

    module = torch.nn.Identity()
    module.num_features = width  # type: ignore[assignment]
    return module


def _filled(metric: Any, real_ND: NDArray, made_ND: NDArray) -> float:
    import torch

    for features, real in ((real_ND, True), (made_ND, False)):
        metric.update(torch.from_numpy(np.asarray(features, dtype=np.float64)), real=real)
    found = metric.compute()
    return round(float(found[0] if isinstance(found, tuple) else found), 6)


def sharpness(pictures: Pictures) -> float:
    """Returns the mean standard deviation of the Laplacian of the grey pictures, in grey levels."""
    import cv2

    grey = (cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY) for picture in pictures)
    return round(float(np.mean([cv2.Laplacian(one, cv2.CV_64F).std() for one in grey])), 4)


def inception_features(onnx: Path) -> Features:
    """Returns features of an Inception as ONNX: (B, 3, H, W) float32 in [-1, 1] to (B, D).

    Raises:
        ValueError: There is no such file.
    """
    import cv2
    import onnxruntime

    if not onnx.is_file():
        raise ValueError(f"no Inception at {onnx}: mend evaluation.inception_onnx or leave it out")
    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    wanted = session.get_inputs()[0]
    side = wanted.shape[-1] if isinstance(wanted.shape[-1], int) else 299

    def features(pictures: Pictures) -> NDArray[np.float64]:
        sized = [cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC) for picture in pictures]
        blobs = (np.stack(sized).astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
        parts = [session.run(None, {wanted.name: blobs[at : at + 32]})[0] for at in range(0, len(blobs), 32)]
        return np.concatenate(parts).reshape(len(pictures), -1).astype(np.float64)

    return features
