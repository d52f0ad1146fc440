"""Random fusion: Eq. 4 case by case, its frequencies, and the warm-up."""

import numpy as np
import pytest

from components.training.config import FusionConfig
from components.training.fusion import eq4_random_fusion


def test_each_case_of_equation_4():
    u = np.array([0.0, 0.3333, 0.3334, 0.5, 0.6666, 0.6667, 0.9999])
    gamma, sigma = eq4_random_fusion(u, 0, FusionConfig())
    np.testing.assert_array_equal(gamma, [2, 2, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(sigma, [0, 0, 1, 1, 1, 2, 2])
    assert gamma.dtype == sigma.dtype == np.float32


def test_bounds_themselves_train_both_branches():
    gamma, sigma = eq4_random_fusion(np.array([0.25, 0.75]), 0, FusionConfig(r1=0.25, r2=0.75))
    np.testing.assert_array_equal([gamma, sigma], [[1, 1], [1, 1]])


def test_cases_are_a_third_each():
    gamma, sigma = eq4_random_fusion(np.random.default_rng(0).random(30_000), 7, FusionConfig())
    for share in ((gamma == 2).mean(), (sigma == 2).mean(), ((gamma == 1) & (sigma == 1)).mean()):
        assert share == pytest.approx(1 / 3, abs=0.01)


def test_warm_up_is_the_plain_sum_until_its_last_step():
    u, config = np.array([0.1, 0.9]), FusionConfig(warmup_steps=10)
    np.testing.assert_array_equal(eq4_random_fusion(u, 9, config), [[1, 1], [1, 1]])
    np.testing.assert_array_equal(eq4_random_fusion(u, 10, config), [[2, 0], [0, 2]])


def test_one_draw_for_the_batch():
    gamma, sigma = eq4_random_fusion(
        np.array([0.9, 0.1, 0.5]), 0, FusionConfig(draw="batch", visual_factor=3)
    )
    np.testing.assert_array_equal([gamma, sigma], [[0, 0, 0], [3, 3, 3]])


def test_swapped_thresholds_are_refused():
    with pytest.raises(ValueError, match="r1 must not exceed r2"):
        FusionConfig(r1=0.7, r2=0.3)
