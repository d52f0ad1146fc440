"""The grid of sample pictures: layout, fixed noise, one row a person."""

import numpy as np
import torch
from diffusers import DDPMScheduler

from components.training.config import TrainConfig
from components.training.samples import MARGIN, PICTURES, one_a_person, picture_grid, sample_pictures
from tests.unit.training.made_prompts import made_prompts


def test_grid_puts_the_reference_first_and_each_person_in_a_row():
    references = [np.full((10, 10, 3), 10, np.uint8), np.full((4, 4, 3), 20, np.uint8)]
    pictures = (
        np.zeros((2, 3, 10, 10, 3), np.uint8) + np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * 40
    )
    grid = np.asarray(picture_grid(references, pictures))
    cell = 10 + MARGIN
    assert grid.shape == (2 * cell, 4 * cell, 3)
    assert (grid[:10, :10] == 10).all()
    assert (grid[cell : cell + 10, :10] == 20).all()
    assert (grid[cell : cell + 10, 2 * cell : 2 * cell + 10] == 160).all()


def test_one_a_person_takes_the_first_photo_of_each():
    samples = [{"__key__": key, "meta.json": {"person": person}} for key, person in ("1a", "2a", "3b", "4c")]
    assert [sample["__key__"] for sample in one_a_person(samples, 2)] == ["1", "3"]


class Vae:
    dtype = torch.float32

    class config:  # noqa: N801 - as diffusers names it
        scaling_factor = 2.0

    @staticmethod
    def decode(latents):
        class Decoded:
            sample = latents[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2)

        return Decoded


def drawn(people, seed=0):
    """Pictures of a model that predicts zero velocity, so that they show the starting noise."""
    calls = []

    def predict(noisy, timesteps, ids, positions, features, gamma, sigma, alpha):
        calls.append((ids, gamma, sigma, features))

        class Prediction:
            noise_pred = torch.zeros_like(noisy)

        return Prediction

    samples = [{"__key__": key, "features.npy": np.full((1, 1, 1), int(key), np.float32),
                "latents.npy": np.zeros((8, 4, 4), np.float32)} for key in people]  # fmt: skip
    prompts = made_prompts()
    scheduler = DDPMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    config = TrainConfig.parse({"validation": {"sample_steps": 3}}, source="a test")
    pictures = sample_pictures(
        predict, Vae, scheduler, samples, prompts, config, seed, torch.device("cpu"), torch.float32
    )
    return pictures, calls


def test_pictures_of_a_person_do_not_depend_on_the_others():
    alone, _ = drawn(["5"])
    together, calls = drawn(["4", "5"])
    assert together.shape == (2, PICTURES, 8, 8, 3)
    np.testing.assert_array_equal(together[1], alone[0])
    assert (together[1, 0] != together[1, 1]).any()
    assert len(calls) == 3


def test_guidance_compares_with_the_empty_prompt_and_no_visual_branch():
    _, calls = drawn(["4", "5"])
    ids, gamma, sigma, features = calls[0]
    half = 2 * PICTURES
    plain, empty = made_prompts().rows([None, ""])[0]
    assert (ids[:half] == empty).all()
    assert (ids[half:] == plain).all()
    assert (gamma == 1).all()
    assert (sigma[:half] == 0).all()
    assert (sigma[half:] == 1).all()
    assert features[half:, 0, 0, 0].tolist() == [4.0] * PICTURES + [5.0] * PICTURES
