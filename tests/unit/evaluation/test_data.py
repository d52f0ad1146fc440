import dataclasses

import pytest

from components.evaluation.config import EvaluationConfig
from components.evaluation.data import choose_people, choose_references, photo_of


def test_fewer_people_are_taken_evenly_over_groups_and_genders(photos):
    labels = {"p0": "x", "p1": "x", "p2": "x", "p3": "x", "p4": "x", "p5": "y", "p6": "y", "p7": "z"}
    photos = [dataclasses.replace(p, group=labels[p.person], gender="") for p in photos]
    kept = choose_people(photos, 4)
    assert {p.person for p in kept} == {"p0", "p1", "p5", "p7"}
    assert len(kept) == 12


def test_all_people_are_kept_by_default(photos):
    assert sorted(p.key for p in choose_people(photos, None)) == sorted(p.key for p in photos)


def test_the_order_of_the_shards_does_not_matter(photos):
    assert choose_people(photos[::-1], 5) == choose_people(photos, 5)


def test_references_are_the_first_photos_of_each_person(photos):
    keys = [p.key for p in choose_references(photos[::-1], 2)]
    assert keys == [f"{person:04x}{view:04x}-0" for person in range(8) for view in range(2)]


def test_one_person_is_too_few(photos):
    with pytest.raises(ValueError, match="at least 2"):
        choose_people(photos[:3], None)


def test_a_sample_without_group_is_a_photo_without_group(photos):
    meta = {"person": 7, "target_landmarks_xy": photos[0].landmarks_xy.tolist(), "group": None}
    sample = {
        "__key__": "k",
        "meta.json": meta,
        "target.png": photos[0].target_uint8,
        "features.npy": photos[0].features,
        "identity.npy": photos[0].identity,
    }
    photo = photo_of(sample)
    assert (photo.key, photo.person, photo.group, photo.gender) == ("k", "7", "", "")
    assert photo.landmarks_xy.shape == (5, 2)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"prompt": "a photo"}, "must hold S"),
        ({"base_prompt": "a photo of S*"}, "must not hold S"),
        ({"people": 1}, "people"),
        ({"dials": {"gamma": float("nan")}}, "gamma"),
        ({"dials": {"beta": 1}}, "beta"),
        ({"pictures": 3}, "pictures"),
    ],
)
def test_bad_settings_are_refused_by_name(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        EvaluationConfig.parse(values, source="test")
