"""`reference_gain`: pairing, statistics on losses with known answers, and a model whose gain is known."""

import numpy as np
import pytest
import torch

from components.training.config import TrainConfig
from components.training.validation import (
    ReferenceGain,
    bootstrap_interval,
    pair_people,
    relative_gain,
    summarise,
)
from tests.unit.training.made_prompts import made_prompts


def test_nobody_is_their_own_wrong_reference_and_all_are_used():
    people = ["a", "b", "a", "c", "b", "d"]
    pairs = pair_people(people)
    assert sorted(pairs.samples) == list(range(6))
    for sample, wrong, other in zip(pairs.samples, pairs.swapped, pairs.other_view, strict=True):
        assert people[sample] != people[wrong]
        assert other == -1 if people[sample] in "cd" else people[other] == people[sample] and other != sample
    assert len({people[i] for i in pairs.swapped}) == 4
    assert len(set(pairs.person)) == 4


def test_pairs_do_not_depend_on_the_order_of_samples():
    def named(people):
        pairs = pair_people(people)
        return {(people[s], people[w]) for s, w in zip(pairs.samples, pairs.swapped, strict=True)}

    assert named(["x", "y", "z", "w"]) == named(["w", "z", "y", "x"])


def test_a_limit_takes_whole_people_and_one_person_is_too_few():
    pairs = pair_people(["a", "a", "b", "c", "c"], limit=2)
    assert len(set(pairs.person)) == 2
    with pytest.raises(ValueError, match="at least two people, found 1"):
        pair_people(["a", "a"])


def test_gain_and_interval_on_known_losses():
    right = np.linspace(0.5, 1.5, 40)
    assert relative_gain(right, 1.1 * right) == pytest.approx(0.1)
    low, high = bootstrap_interval(right, 1.1 * right, 500, 0)
    assert (low, high) == pytest.approx((0.1, 0.1))  # every person gains alike: nothing to be unsure of
    noise = np.random.default_rng(0).normal(0, 0.05, 40)
    low, high = bootstrap_interval(right, right + 0.1 + noise, 2000, 0)
    assert low < relative_gain(right, right + 0.1 + noise) < high
    assert high - low == pytest.approx(4 * noise.std() / 40**0.5, rel=0.35)


def test_the_interval_covers_zero_when_there_is_nothing_to_find():
    rng, covered = np.random.default_rng(1), 0
    for trial in range(60):
        right = rng.uniform(0.5, 1.5, 30)
        low, high = bootstrap_interval(right, right + rng.normal(0, 0.1, 30), 400, trial)
        covered += low <= 0 <= high
    assert covered >= 51


def test_people_count_alike_whatever_their_number_of_photos():
    pairs = pair_people(["a"] * 9 + ["b"])
    of_a = np.array([i in range(9) for i in pairs.samples])
    right = np.ones((10, 2))
    swapped = np.where(of_a, 1.0, 2.0)[:, None] * right
    report = summarise(
        pairs, np.array([10, 20]), {"right": right, "swapped": swapped, "other_view": right}, 200, 0
    )
    assert report.gain == pytest.approx(0.5)  # (1 + 2) / 2 over people, not 1.1 over photos
    assert report.people == 2
    assert set(report.by_timestep) == {10, 20}


class Scheduler:
    """Adds no noise and asks for the latents back, so that a model's loss is known in closed form."""

    alphas_cumprod = torch.linspace(1, 0, 100)

    class config:  # noqa: N801 - as diffusers names it
        prediction_type = "sample"

    @staticmethod
    def add_noise(latents, noise, timesteps):
        return torch.zeros_like(latents)


class Copies:
    """Predicts a picture of the reference: the closer the right reference, the lower the loss."""

    def __call__(self, noisy, timesteps, ids, positions, features, gamma, sigma, alpha):
        self.seen = timesteps
        value = features[:, 0, 0, 0]

        class Prediction:
            noise_pred = value[:, None, None, None].expand_as(noisy) + 1

        return Prediction


@pytest.fixture
def known():
    samples = []
    for person, value in enumerate((0.0, 2.0, 4.0)):
        for view in range(2):
            samples.append({
                "__key__": f"{person}-{view}",
                "latents.npy": np.stack([np.full((2, 2), value), np.zeros((2, 2))]).astype(np.float32),
                "features.npy": np.full((1, 1, 1), value, np.float32),
                "meta.json": {"person": str(person)},
            })  # fmt: skip
    config = TrainConfig.parse({"validation": {"timesteps": 4, "batch_size": 5}}, source="a test")
    return ReferenceGain(config, samples, made_prompts(), Scheduler, 1.0, 0)


@pytest.mark.usefixtures("process_group")
def test_gain_of_a_model_that_copies_its_reference(known):
    report = known.measure(Copies(), torch.device("cpu"), torch.float32, 0, 1)
    people = [float(known._samples[i]["features.npy"][0, 0, 0]) for i in known.pairing.samples]
    wrong = [float(known._samples[i]["features.npy"][0, 0, 0]) for i in known.pairing.swapped]
    expected = np.mean([(w + 1 - p) ** 2 for w, p in zip(wrong, people, strict=True)])
    assert report.loss_right == pytest.approx(1.0)
    assert report.gain == pytest.approx(expected - 1)
    assert report.other_view_gain == pytest.approx(expected - 1)
    assert list(report.by_timestep) == [12, 37, 62, 87]


@pytest.mark.usefixtures("process_group")
def test_two_ranks_share_the_work_without_gap_or_overlap(known):
    device = torch.device("cpu")
    units = [(i % 6, (i + 2) % 6, 10) for i in range(7)]  # odd: one rank repeats its last
    whole = known._share_of_losses(Copies(), units, device, torch.float32, 0, 1)
    parts = [known._share_of_losses(Copies(), units, device, torch.float32, rank, 2) for rank in (0, 1)]
    np.testing.assert_array_equal(parts[0] + parts[1], whole)
    assert (whole > 0).all()
    assert (parts[0][1::2] == 0).all()
    assert (parts[1][::2] == 0).all()
