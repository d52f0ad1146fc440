"""Draws that do not depend on workers; targets and x_0 estimates against diffusers and each other."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from components.training.batch import MicroBatch
from components.training.config import FaceLossConfig, FusionConfig, LossConfig, TrainConfig
from components.training.face_identity import FaceIdentity
from components.training.objective import (
    ddim_step,
    draw_step,
    estimate_x0,
    prediction_target,
    sample_latents,
    sample_noise,
    signal_to_noise,
)
from components.training.step import Objective


def config(**values):
    return TrainConfig(**{"global_batch_size": 64, "steps": 100} | values)


def scheduler(prediction_type, zero_snr=False):
    return DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
    )


def test_draws_are_a_function_of_seed_and_step():
    first, again, other = (draw_step(config(), 3, step, 1000) for step in (5, 5, 6))
    for name in ("timesteps", "gamma", "sigma", "dropped", "face"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.timesteps != other.timesteps).any()
    assert (first.timesteps != draw_step(config(), 4, 5, 1000).timesteps).any()


def test_uniform_timesteps_cover_the_whole_schedule():
    drawn = np.concatenate([draw_step(config(), 0, step, 50).timesteps for step in range(200)])
    assert drawn.min() == 0
    assert drawn.max() == 49
    np.testing.assert_allclose(np.bincount(drawn, minlength=50) / len(drawn), 1 / 50, atol=0.006)


def test_stratified_timesteps_take_one_from_each_slice():
    drawn = draw_step(config(losses=LossConfig(timestep_sampling="stratified")), 0, 3, 640).timesteps
    np.testing.assert_array_equal(np.sort(drawn) // 10, np.arange(64))
    assert (np.sort(drawn) != drawn).any()


def test_dropped_samples_see_the_text_branch_alone_and_no_face_loss():
    draws = draw_step(
        config(condition_dropout=0.5, face_loss=FaceLossConfig(fraction=1, max_timestep=1)), 0, 0, 10
    )
    assert 16 < draws.dropped.sum() < 48
    np.testing.assert_array_equal(draws.gamma[draws.dropped], 1)
    np.testing.assert_array_equal(draws.sigma[draws.dropped], 0)
    np.testing.assert_array_equal(draws.face, ~draws.dropped)


def test_face_samples_are_few_low_and_only_when_due():
    face = FaceLossConfig(fraction=0.125, max_timestep=0.3, every_n_steps=4, start_step=8)
    counts = []
    for step in range(24):
        draws = draw_step(config(face_loss=face), 0, step, 1000)
        counts.append(draws.face_count)
        assert (draws.timesteps[draws.face] < 300).all()
        assert draws.face_count == draws.face.sum() <= 8
    assert [step for step, count in enumerate(counts) if count] == [8, 12, 16, 20]
    assert not draw_step(config(face_loss=FaceLossConfig(lambda_face=0)), 0, 0, 1000).face.any()


def test_a_part_keeps_its_entries_and_the_global_count():
    draws = draw_step(config(), 0, 0, 1000)
    part = draws.at(np.array([40, 2]))
    np.testing.assert_array_equal(part.timesteps, draws.timesteps[[40, 2]])
    np.testing.assert_array_equal(part.sigma, draws.sigma[[40, 2]])
    assert part.face_count == draws.face_count


def test_warm_up_of_fusion_reaches_the_draws():
    assert (draw_step(config(fusion=FusionConfig(warmup_steps=3)), 0, 2, 1000).gamma == 1).all()
    assert set(draw_step(config(fusion=FusionConfig(warmup_steps=3)), 0, 3, 1000).gamma) == {0.0, 1.0, 2.0}


def test_noise_of_a_sample_does_not_depend_on_its_neighbours():
    together = sample_noise(0, 4, range(6), (2, 3, 3), "noise")
    torch.testing.assert_close(together[3:5], sample_noise(0, 4, [3, 4], (2, 3, 3), "noise"), rtol=0, atol=0)
    assert (together[0] != together[1]).any()
    assert (together != sample_noise(0, 5, range(6), (2, 3, 3), "noise")).all()
    assert (together != sample_noise(0, 4, range(6), (2, 3, 3), "posterior")).all()


def test_noise_is_standard_normal():
    noise = sample_noise(1, 0, range(50), (4, 16, 16), "noise")
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.02)


def test_latents_are_drawn_from_the_posterior_then_scaled():
    moments = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    noise = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = (moments[:, :3] + moments[:, 3:] * noise) * 0.18
    torch.testing.assert_close(sample_latents(moments, noise, 0.18), expected)
    assert sample_latents(moments.half(), noise.float(), 1.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "zero_snr"), [("epsilon", False), ("v_prediction", True), ("sample", False)]
)
def test_x0_from_the_exact_prediction_is_the_latents(kind, zero_snr):
    noise_scheduler = scheduler(kind, zero_snr)
    latents, noise = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    timesteps = torch.tensor([0, 400, 900, 999])
    noise_scheduler.alphas_cumprod = noise_scheduler.alphas_cumprod.double()
    noisy = noise_scheduler.add_noise(latents, noise, timesteps)
    target = prediction_target(noise_scheduler, latents, noise, timesteps)
    estimate = estimate_x0(noise_scheduler, target, noisy, timesteps)
    torch.testing.assert_close(estimate, latents, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_x0_equals_diffusers_own(kind):
    ddim = DDIMScheduler.from_config(scheduler(kind).config, clip_sample=False)
    ddim.set_timesteps(1000)
    prediction, noisy = torch.randn(2, 1, 4, 8, 8)
    for timestep in (999, 500, 1):
        expected = ddim.step(prediction, timestep, noisy).pred_original_sample
        ours = estimate_x0(ddim, prediction, noisy, torch.tensor([timestep]))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_step_towards_x0_equals_diffusers_ddim(kind):
    ddim = DDIMScheduler.from_config(scheduler(kind).config, clip_sample=False, set_alpha_to_one=False)
    ddim.set_timesteps(10)
    prediction, noisy = torch.randn(2, 1, 4, 8, 8)
    for timestep in (900, 500, 100):
        expected = ddim.step(prediction, timestep, noisy).prev_sample
        ours = ddim_step(ddim, prediction, noisy, torch.tensor([timestep]), torch.tensor([timestep - 100]))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    now = torch.tensor([300])
    torch.testing.assert_close(ddim_step(ddim, prediction, noisy, now, now), noisy, atol=1e-4, rtol=1e-4)


def face_objective(x0_steps: int):
    """An objective whose faces are latents, over a model with one weight that notes its calls."""
    face = FaceLossConfig(fraction=1, max_timestep=1, x0_steps=x0_steps)
    objective = Objective(
        config(global_batch_size=3, face_loss=face), scheduler("epsilon"), 1.0,
        FaceIdentity(torch.nn.Identity(), None),
    )  # fmt: skip
    objective.face = lambda latents, _landmarks: latents.flatten(1)
    weight = torch.tensor(0.9, requires_grad=True)
    calls = []

    def model(noisy, timesteps, ids, positions, features, gamma, sigma, alpha):
        calls.append((timesteps.tolist(), features.shape[0], torch.is_grad_enabled()))
        return SimpleNamespace(noise_pred=weight * noisy.roll(1, -1), p_f=features, visual_values=[features])

    rows = torch.tensor([0, 2])
    batch = MicroBatch(
        moments=torch.cat([torch.randn(3, 2, 4, 4), torch.zeros(3, 2, 4, 4)], 1),
        posterior_noise=torch.zeros(3, 2, 4, 4),
        noise=torch.randn(3, 2, 4, 4),
        timesteps=torch.tensor([300, 500, 40]),
        input_ids=torch.zeros(3, 7, dtype=torch.long),
        word_positions=torch.full((3, 7), -1),
        features=torch.zeros(3, 1, 2, 4),
        gamma=torch.ones(3),
        sigma=torch.ones(3),
        face_rows=rows,
        face_share=torch.tensor(0.5),
        identity=torch.randn(2, 32),
        landmarks_xy=torch.zeros(2, 5, 2),
    )
    return objective, model, batch, calls, weight


def test_x0_of_the_identity_loss_takes_as_many_steps_as_asked():
    losses = {}
    for steps in (1, 3):
        torch.manual_seed(0)
        objective, model, batch, calls, weight = face_objective(steps)
        terms = objective(model, batch)
        terms[2].backward()
        losses[steps] = terms[2].item()
        assert weight.grad.abs() > 0
        assert calls[0] == ([300, 500, 40], 3, True)
        # further steps: the face rows alone, evenly towards 0, and gradients through the last one only
        assert calls[1:] == [([200, 26], 2, False), ([100, 13], 2, True)][: steps - 1]
    assert losses[1] != pytest.approx(losses[3], rel=1e-3)


def test_the_diffusion_term_weighs_places_as_the_batch_says():
    terms = []
    for place_weight in (None, torch.ones(3, 1, 4, 4), torch.rand(3, 1, 4, 4)):
        torch.manual_seed(0)
        objective, model, batch, _, weight = face_objective(1)
        terms.append(objective(model, replace(batch, place_weight=place_weight))[1])
    assert terms[0].item() == pytest.approx(terms[1].item())
    noisy = objective.noise_scheduler.add_noise(batch.moments[:, :2], batch.noise, batch.timesteps)
    squared = (weight * noisy.roll(1, -1) - batch.noise) ** 2
    torch.testing.assert_close(terms[2], (place_weight * squared).mean())


def test_velocity_is_exact_at_zero_signal():
    noise_scheduler = scheduler("v_prediction", zero_snr=True)
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    last = torch.tensor([999])
    target = prediction_target(noise_scheduler, latents, noise, last)
    torch.testing.assert_close(target, -latents, atol=1e-5, rtol=0)
    assert signal_to_noise(noise_scheduler, last).item() == pytest.approx(0, abs=1e-6)


def test_snr_matches_the_schedule():
    noise_scheduler = scheduler("epsilon")
    alpha_bar = noise_scheduler.alphas_cumprod
    snr = signal_to_noise(noise_scheduler, torch.arange(1000))
    torch.testing.assert_close(snr, alpha_bar / (1 - alpha_bar))


def test_unknown_prediction_type_is_refused():
    noise_scheduler = scheduler("epsilon")
    noise_scheduler.register_to_config(prediction_type="flow")
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="'flow' of the base is not known"):
        prediction_target(noise_scheduler, x, x, torch.tensor([0]))
