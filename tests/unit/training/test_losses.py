"""Each term of the objective against its formula, in float64."""

import numpy as np
import pytest
import torch

from components.training.config import TrainConfig
from components.training.losses import (
    eq2_diffusion_loss,
    eq5_text_regularizer,
    eq6_visual_regularizer,
    eq7_face_loss,
    eq8_total_loss,
    min_snr_weights,
)

F64 = torch.float64


def test_diffusion_loss_is_the_mean_square_of_each_sample():
    a, b = torch.randn(3, 4, 5, 6, dtype=F64), torch.randn(3, 4, 5, 6, dtype=F64)
    expected = ((a.numpy() - b.numpy()) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(eq2_diffusion_loss(a, b), expected, rtol=1e-14)


def test_places_may_count_more_or_less_than_others():
    a, b = torch.randn(2, 3, 4, 5, 6, dtype=F64)
    weight = torch.rand(3, 1, 5, 6, dtype=F64)
    expected = (weight.numpy() * (a.numpy() - b.numpy()) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(eq2_diffusion_loss(a, b, weight), expected, rtol=1e-14)
    torch.testing.assert_close(eq2_diffusion_loss(a, b, torch.ones_like(weight)), eq2_diffusion_loss(a, b))


def test_half_precision_predictions_are_compared_in_float32():
    a = torch.full((1, 4, 8, 8), 300.0, dtype=torch.float16)
    assert eq2_diffusion_loss(a, -a).item() == pytest.approx(600.0**2)  # would overflow in float16


def test_face_loss_is_one_minus_cosine_whatever_the_norms():
    a, b = torch.randn(4, 7, dtype=F64), torch.randn(4, 7, dtype=F64)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    torch.testing.assert_close(eq7_face_loss(a, b), 1 - cosine, rtol=1e-12, atol=0)
    torch.testing.assert_close(eq7_face_loss(5 * a, 0.1 * a), torch.zeros(4, dtype=F64), atol=1e-12, rtol=0)
    torch.testing.assert_close(eq7_face_loss(a, -a), torch.full((4,), 2.0, dtype=F64))


def test_face_loss_teaches_the_picture_not_the_reference():
    a, b = torch.randn(2, 7, requires_grad=True), torch.randn(2, 7, requires_grad=True)
    eq7_face_loss(a, b).sum().backward()
    assert a.grad is None
    assert b.grad.abs().sum() > 0


def test_the_total_is_the_sum_of_equation_8_with_the_papers_weights():
    diffusion, face, text, visual = torch.rand(4, 3, dtype=F64)
    found = eq8_total_loss(diffusion, face, text, visual)
    expected = diffusion.numpy() + 0.01 * face.numpy() + 0.01 * text.numpy() + 0.001 * visual.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    other = eq8_total_loss(diffusion, face, text, visual, 1.0, 2.0, 3.0)
    torch.testing.assert_close(other, diffusion + face + 2 * text + 3 * visual)
    config = TrainConfig()
    weights = config.face_loss.lambda_face, config.losses.lambda_text, config.losses.lambda_visual
    assert weights == (0.01, 0.01, 0.001)


def test_regularizers_are_mean_absolute_values():
    words = torch.randn(2, 5, 8, dtype=F64)
    torch.testing.assert_close(eq5_text_regularizer(words), words.abs().mean(dim=(1, 2)))
    small, wide = torch.randn(2, 5, 4, dtype=F64), torch.randn(2, 3, 5, 16, dtype=F64)
    expected = (small.abs().mean(dim=(1, 2)) + wide.abs().mean(dim=(1, 2, 3))) / 2  # layers count alike
    torch.testing.assert_close(eq6_visual_regularizer([small, wide]), expected)
    torch.testing.assert_close(eq6_visual_regularizer([expected, expected]), expected)


def test_missing_visual_values_are_an_error():
    with pytest.raises(ValueError, match="no visual values were recorded"):
        eq6_visual_regularizer([])


def test_min_snr_weights():
    snr = torch.tensor([0.0, 0.5, 5.0, 50.0], dtype=F64)
    torch.testing.assert_close(min_snr_weights(snr, 5.0, "epsilon"), torch.tensor([1, 1, 1, 0.1], dtype=F64))
    expected = torch.tensor([0, 0.5 / 1.5, 5 / 6, 5 / 51], dtype=F64)
    torch.testing.assert_close(min_snr_weights(snr, 5.0, "v_prediction"), expected)
    torch.testing.assert_close(min_snr_weights(snr, 5.0, "sample"), torch.tensor([0, 0.5, 5, 5], dtype=F64))
    with pytest.raises(ValueError, match="'flow' is not known"):
        min_snr_weights(snr, 5.0, "flow")
