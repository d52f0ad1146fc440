"""Random fusion of the text and visual branches in training (PhotoVerse Eq. 4): a pure function of draws."""

import numpy as np
from numpy.typing import NDArray

from components.training.config import FusionConfig


def eq4_random_fusion(
    draws_u: NDArray[np.float64], step: int, config: FusionConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Decides which branches each sample trains (PhotoVerse Eq. 4).

    u < r1: the text branch alone, gamma = `text_factor`, sigma = 0. u > r2: the visual branch alone, gamma
    = 0, sigma = `visual_factor`. Otherwise, and for all samples before `warmup_steps`, both with weight 1.

    Args:
        draws_u: (B,) uniform in [0, 1), one a sample of the global batch.
        step: Optimizer step, from 0.
        config: Thresholds, factors, and whether the first draw decides for all.

    Returns:
        gamma (B,) and sigma (B,).
    """
    if step < config.warmup_steps:
        ones = np.ones(draws_u.shape, dtype=np.float32)
        return ones, ones.copy()
    u = draws_u if config.draw == "sample" else np.full_like(draws_u, draws_u[0])
    text_alone, visual_alone = u < config.r1, u > config.r2
    gamma = np.where(text_alone, config.text_factor, np.where(visual_alone, 0.0, 1.0))
    sigma = np.where(visual_alone, config.visual_factor, np.where(text_alone, 0.0, 1.0))
    return gamma.astype(np.float32), sigma.astype(np.float32)
