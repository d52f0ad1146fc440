import numpy as np
import pytest

from components.evaluation import metrics

E = np.eye(4)


def test_own_similarity_by_hand():
    pictures = np.stack([[E[0], E[1]], [(E[0] + E[1]) / np.sqrt(2), np.zeros(4)]])
    np.testing.assert_allclose(metrics.own_similarity(pictures, E[:2]), [[1, 0], [np.sqrt(0.5), 0]])


def test_the_floor_is_the_mean_over_other_people_and_leaves_out_own_photos():
    references = np.stack([E[0], E[0], (E[0] + E[1]) / np.sqrt(2), E[2]])
    people = np.array(["a", "a", "b", "c"])
    floor = metrics.others_similarity(references, people)
    np.testing.assert_allclose(floor, [np.sqrt(0.5) / 2, np.sqrt(0.5) / 2, 2 * np.sqrt(0.5) / 3, 0])


def test_the_floor_needs_two_people():
    with pytest.raises(ValueError, match="two people"):
        metrics.others_similarity(E[:2], np.array(["a", "a"]))


def test_the_ceiling_leaves_out_the_very_photo_and_is_nan_without_another():
    photos = np.stack([E[0], (E[0] + E[1]) / np.sqrt(2), E[2]])
    people = np.array(["a", "a", "b"])
    same_photo = np.array([[True, False, False], [False, False, True]])
    ceiling = metrics.same_similarity(photos[[0, 2]], photos, people[[0, 2]], people, same_photo)
    np.testing.assert_allclose(ceiling, [np.sqrt(0.5), np.nan])


def test_retrieval_counts_ties_and_empty_vectors_as_misses():
    pictures = np.stack([[E[0], E[1], np.zeros(4), (E[0] + E[1]) / np.sqrt(2)]])
    hits = metrics.retrieval_hits(pictures, E[:2], np.array(["a"]), np.array(["a", "b"]))
    np.testing.assert_array_equal(hits, [[1, 0, 0, 0]])


def test_a_person_with_many_pictures_counts_once():
    people, means = metrics.mean_by_person(np.array([1.0, 3.0, 10.0, np.nan]), np.array(["a", "a", "b", "c"]))
    assert people.tolist() == ["a", "b"]
    np.testing.assert_allclose(means, [2, 10])


@pytest.mark.parametrize("people", [8, 30])
@pytest.mark.parametrize(("draw", "truth"), [("normal", 0.5), ("beta", 0.2)])
def test_intervals_cover_the_true_mean_as_often_as_they_say(people, draw, truth):
    hits, sets = 0, 1000
    for trial in range(sets):
        rng = np.random.default_rng(trial)
        values = rng.normal(0.5, 0.1, people) if draw == "normal" else rng.beta(1, 4, people)
        low, high = metrics.bootstrap_interval(values, seed=trial + 10_000, samples=500)
        hits += low <= truth <= high
    assert 0.93 <= hits / sets <= 0.97


def test_the_interval_is_wide_when_nothing_is_known_and_a_point_when_all_agree():
    assert metrics.bootstrap_interval(np.array([0.7]), seed=0) == (-1.0, 1.0)
    assert metrics.bootstrap_interval(np.full(9, 0.7), seed=0) == pytest.approx((0.7, 0.7))
    low, high = metrics.bootstrap_interval(np.array([0.1, 0.9]), seed=0)
    assert (low, high) == (-1.0, 1.0)


def test_one_person_of_eighty_without_a_face_leaves_the_interval_narrow():
    found = np.array([1.0] * 79 + [0.0])
    low, high = metrics.bootstrap_interval(found, seed=0, bounds=(0.0, 1.0))
    assert 0.9 < low < found.mean() < high <= 1.0


def test_one_person_of_forty_who_is_unlike_the_others_does_not_stretch_it_without_end():
    alike = np.random.default_rng(0).normal(0.97, 0.01, 39)
    low, high = metrics.bootstrap_interval(np.append(alike, 0.0), seed=0)
    assert 0.85 < low < 0.945 < high < 1


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=12)
    first = metrics.bootstrap_interval(values, seed=3)
    assert first == metrics.bootstrap_interval(values, seed=3)
    assert first != metrics.bootstrap_interval(values, seed=4)


def test_colour_histograms_are_unit_vectors_and_their_cosine_is_bhattacharyya():
    red, blue = np.zeros((2, 8, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    half = np.where(np.arange(8)[:, None, None] < 4, red, blue).astype(np.uint8)
    vectors = metrics.colour_histograms(np.stack([red, blue, half]), np.ones((8, 8)), bins=4)
    np.testing.assert_allclose(
        vectors @ vectors.T, [[1, 0, 0.5**0.5], [0, 1, 0.5**0.5], [0.5**0.5, 0.5**0.5, 1]]
    )


def test_a_pixel_between_two_bins_is_shared_by_nearness():
    fifth_red = np.zeros((1, 2, 2, 3), np.uint8)
    fifth_red[..., 0] = 51
    (vector,) = metrics.colour_histograms(fifth_red, np.ones((2, 2)), bins=2)
    np.testing.assert_allclose(vector**2, [0.8, 0, 0, 0, 0.2, 0, 0, 0], atol=1e-9)


def test_a_small_change_of_light_is_a_small_change_of_the_histogram():
    grey = np.full((2, 8, 8, 3), 100, np.uint8)
    grey[1] += 3
    first, second = metrics.colour_histograms(grey, np.ones((8, 8)), bins=8)
    assert first @ second > 0.9


def test_weights_keep_pixels_out_of_the_histogram():
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    picture[0, 0] = 255
    weights = np.ones((4, 4))
    weights[0] = 0
    dark = metrics.colour_histograms(np.zeros_like(picture), np.ones((4, 4)), bins=4)
    np.testing.assert_allclose(metrics.colour_histograms(picture, weights, bins=4), dark)


def test_diversity_is_zero_for_copies_and_nan_for_a_single_picture():
    np.testing.assert_allclose(metrics.diversity(np.stack([[E[0], E[0]], [E[0], E[1]]])), [0, 1], atol=1e-12)
    assert np.isnan(metrics.diversity(E[None, :1])).all()


def test_picture_vectors_ignore_brightness_but_not_content():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 200, (64, 64, 3)).astype(np.uint8)
    same, other = picture + 30, rng.integers(0, 200, (64, 64, 3)).astype(np.uint8)
    vectors = metrics.picture_vectors(np.stack([picture, same, other]))
    assert vectors[0] @ vectors[1] > 0.999
    assert abs(vectors[0] @ vectors[2]) < 0.2


def test_the_largest_gap():
    assert metrics.largest_gap({"a": 0.2, "b": 0.7, "c": 0.5}) == pytest.approx(0.5)
    assert metrics.largest_gap({"a": 0.2}) == 0
