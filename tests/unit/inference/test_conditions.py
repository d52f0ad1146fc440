import pytest
import torch

from components.inference import Dials
from components.inference.conditions import (
    alpha_at,
    branch_weights,
    expand_rows,
    factor_at,
    make_rows,
    moments,
    shared_dials,
    stack_tokens,
    words_at,
)
from tests.unit.inference.test_cards import make_card


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 0.0), (0.19, 0.0), (0.2, 1.0), (0.6, 1.0), (0.8, 0.5), (1.0, 0.5)]
)
def test_a_schedule_is_piecewise_constant(progress, factor):
    assert factor_at(((0, 0), (0.2, 1), (0.8, 0.5)), progress) == factor
    assert factor_at((), progress) == 1


@pytest.mark.parametrize("schedule", [((0.1, 1),), ((0, 1), (0.5, 2), (0.4, 1)), ((0, 1), (0, 2))])
def test_a_schedule_starts_at_zero_and_rises(schedule):
    with pytest.raises(ValueError, match="must start at share 0"):
        Dials(sigma_schedule=schedule)


@pytest.mark.parametrize(
    "both", [{"m": 1, "m_levels": (1, 1)}, {"m_schedule": ((0, 1),), "m_levels": (1, 1)}]
)
def test_m_is_said_in_one_way_only(both):
    with pytest.raises(ValueError, match="say different things of m"):
        Dials(**both)


def test_alpha_and_m_follow_schedules_and_levels():
    dials = Dials(alpha=2, alpha_schedule=((0, 0.5), (0.5, 1)), m_schedule=((0, 1), (0.5, 3)))
    assert (alpha_at(dials, 0.0, 2), alpha_at(dials, 0.5, 2)) == (1, 2)
    assert [words_at(dials, progress, 0, 2) for progress in (0.0, 0.4, 0.5, 1.0)] == [1, 1, 3, 3]
    assert moments(make_rows(["a"], [None], dials, None)) == [0, 0.5]
    by_level = Dials(alpha_levels=(1, 0.5), m_levels=(3, 1))
    assert alpha_at(by_level, 0.0, 2) == (1, 0.5)
    assert [words_at(by_level, 0.0, level, 2) for level in (0, 1)] == [3, 1]
    assert (words_at(Dials(m=2), 0.7, 1, 2), words_at(Dials(), 0.7, 1, 2)) == (2, None)
    for at in (alpha_at, lambda *args: words_at(args[0], args[1], 0, args[2])):
        with pytest.raises(ValueError, match="2 factors for resolution levels; this UNet has 3"):
            at(by_level, 0.0, 3)


@pytest.mark.parametrize(
    "values", [{"gamma": -0.1}, {"sigma": 5}, {"m": 0}, {"guidance_scale": 0.5}, {"strength": 0}]
)
def test_dials_have_bounds(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Dials.parse(values, source="a test")


def test_weights_of_rows_follow_dials_schedules_and_levels():
    dials = Dials(gamma=2, sigma=0.5, sigma_schedule=((0, 0), (0.5, 2)), gamma_levels=(1, 0.5))
    rows = make_rows(["S*", "none"], [make_card(), None], dials, None)
    gamma, sigma = branch_weights(rows, 0.0, 2)
    assert gamma.tolist() == [[2, 1], [2, 1]]
    assert sigma.tolist() == [[0, 0], [0, 0]]
    assert branch_weights(rows, 0.5, 2)[1].tolist() == [[1, 1], [0, 0]]  # nobody is there: sigma 0
    with pytest.raises(ValueError, match="2 factors for resolution levels; this UNet has 3"):
        branch_weights(rows, 0.0, 3)


def test_rows_are_repeated_for_images_after_the_unconditional_half():
    values = torch.tensor([[1.0], [2.0]])
    assert expand_rows(values, 2, False)[:, 0].tolist() == [1, 1, 2, 2]
    assert expand_rows(values, 2, True, 0.0)[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert expand_rows(values, 1, True)[:, 0].tolist() == [1, 2, 1, 2]


def test_tokens_of_different_lengths_are_padded_and_masked():
    long, short = make_card(), make_card(visual_tokens=torch.ones(2, 8))
    rows = make_rows(["", "", ""], [long, short, None], Dials(), None)
    tokens, mask = stack_tokens(rows, 8, grouped=False)
    assert tokens.shape == (3, 4, 8)
    assert mask.sum(1).tolist() == [4, 2, 1]
    assert stack_tokens(rows[:1], 8, grouped=False)[1] is None


def test_grouped_tokens_have_equal_places_for_each_person():
    rows = make_rows([""], [[make_card(), make_card(visual_tokens=torch.ones(2, 8))]], Dials(), None)
    tokens, mask = stack_tokens(rows, 8, grouped=True)
    assert tokens.shape == (1, 8, 8)
    assert mask[0].tolist() == [True] * 6 + [False] * 2


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 prompts, but 1 persons"):
        make_rows(["a", "b"], [None], Dials(), None)
    with pytest.raises(ValueError, match="1 prompts, but 2 negative_prompts"):
        make_rows(["a"], [None], Dials(), ["", ""])


@pytest.mark.parametrize(
    "values", [{"alpha": 0.5}, {"guidance_scale": 2}, {"num_inference_steps": 2}, {"strength": 1}]
)
def test_what_a_call_shares_must_be_equal(values):
    rows = make_rows(["a", "b"], [None, None], [Dials(), Dials(**values)], None)
    with pytest.raises(ValueError, match="the pictures of one call share"):
        shared_dials(rows)
    shared_dials(make_rows(["a", "b"], [None, None], [Dials(), Dials(sigma=2, m=1)], None))
