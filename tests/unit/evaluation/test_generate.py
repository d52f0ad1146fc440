import numpy as np
import pytest

from components.evaluation.config import EvaluationConfig
from components.evaluation.generate import (
    load_pictures,
    make_missing,
    picture_seeds,
    plan_base_shots,
    plan_shots,
    safe_name,
)


def test_each_picture_is_made_once_even_when_killed_in_the_middle(config, photos, planted, tmp_path):
    shots = [shot for row in plan_shots(config, photos[:4], tmp_path) for shot in row]
    generator = planted("keeper")
    killed = planted("keeper")
    whole = killed.__call__

    def die_later(shots):
        if killed.asked >= 5:
            raise KeyboardInterrupt
        return whole(shots)

    with pytest.raises(KeyboardInterrupt):
        make_missing(shots, die_later, batch_size=5)
    assert make_missing(shots, generator, batch_size=5) == len(shots) - 5
    assert killed.asked + generator.asked == len(shots)
    assert make_missing(shots, generator, batch_size=5) == 0
    for shot, picture in zip(shots, load_pictures(shots), strict=True):
        np.testing.assert_array_equal(picture, generator.picture(shot.reference, shot.seed))
    assert not list(tmp_path.rglob("*.tmp"))


def test_seeds_follow_from_config_and_photo_alone(photos):
    config = EvaluationConfig(pictures_per_reference=5)
    assert picture_seeds(config, photos[3]) == picture_seeds(EvaluationConfig(batch_size=1), photos[3])
    assert picture_seeds(config, photos[3]) != picture_seeds(EvaluationConfig(seed=1), photos[3])
    assert len({seed for photo in photos for seed in picture_seeds(config, photo)}) == 5 * len(photos)


def test_more_pictures_keep_the_seeds_of_fewer(photos):
    few, many = EvaluationConfig(pictures_per_reference=2), EvaluationConfig(pictures_per_reference=6)
    assert picture_seeds(many, photos[0])[:2] == picture_seeds(few, photos[0])


def test_the_base_model_gets_the_same_seeds(config, photos, tmp_path):
    base = plan_base_shots(config, photos[:3], tmp_path)
    assert [shot.seed for shot in base] == [picture_seeds(config, photo)[0] for photo in photos[:3]]
    assert all(shot.reference is None for shot in base)


@pytest.mark.parametrize("person", ["../../etc", "a/b", "", "ü", "x" * 300, "a b", "."])
def test_any_person_label_becomes_a_file_name_inside_the_folder(person):
    name = safe_name(person)
    assert name.isascii()
    assert "/" not in name
    assert not name.startswith(".")
    assert 0 < len(name) < 60


def test_different_labels_get_different_names():
    labels = ["a/b", "a_b", "a b", "A_b", "x" * 300, "x" * 301, "", "_"]
    assert len({safe_name(label) for label in labels}) == len(labels)


def test_a_generator_that_loses_pictures_is_found_out(config, photos, tmp_path):
    shots = plan_shots(config, photos[:1], tmp_path)[0]
    with pytest.raises(ValueError, match="gave 0 pictures for 3"):
        make_missing(shots, lambda shots: [], batch_size=5)
