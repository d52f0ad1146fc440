from pathlib import Path

import numpy as np
import pytest

from components.face import FaceConfig, load_masker, paint_outside
from components.face.mask import ellipse_mask, hull_mask

FRONTAL = np.array([[44, 56], [84, 56], [64, 80], [48, 102], [80, 102]], np.float32)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return ((points - 64) @ turn.T + 64).astype(np.float32)


def test_the_ellipse_covers_the_landmarks_and_not_the_corners() -> None:
    mask = ellipse_mask((128, 128), FRONTAL)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, 1}
    for x, y in FRONTAL.astype(int):
        assert mask[y, x] == 1
    assert mask[[0, 0, -1, -1], [0, -1, 0, -1]].sum() == 0
    assert 0.25 < mask.mean() < 0.6


def test_the_ellipse_rolls_with_the_head() -> None:
    upright = ellipse_mask((128, 128), FRONTAL)
    lying = ellipse_mask((129, 129), turned(FRONTAL, 90))  # odd side: the turn then maps pixels onto pixels
    back = np.rot90(lying)[:128, :128]
    overlap = (np.minimum(upright, back).sum() / np.maximum(upright, back).sum()).item()
    assert overlap > 0.97


def test_the_ellipse_of_a_turned_face_moves_away_from_the_nose() -> None:
    nose_right = FRONTAL.copy()
    nose_right[2, 0] += 14
    columns = np.arange(128)
    middle = [
        (m.sum(0) * columns).sum() / m.sum()
        for m in (ellipse_mask((128, 128), FRONTAL), ellipse_mask((128, 128), nose_right))
    ]
    assert middle[1] < middle[0] - 5


def test_hair_is_a_switch() -> None:
    face, hair = (load_masker(FaceConfig(mask_hair=on)) for on in (False, True))
    crop = np.zeros((128, 128, 3), np.uint8)
    assert np.all(hair(crop, FRONTAL) >= face(crop, FRONTAL))
    assert hair(crop, FRONTAL)[8, 64] == 1
    assert face(crop, FRONTAL)[8, 64] == 0


def test_degenerate_landmarks_never_break_the_ellipse() -> None:
    assert ellipse_mask((32, 32), np.full((5, 2), 10.0)).shape == (32, 32)


def test_the_hull_grows_five_points_and_takes_many_as_they_are() -> None:
    masker = load_masker(FaceConfig(mask="landmarks"))
    crop = np.zeros((128, 128, 3), np.uint8)
    five = masker(crop, FRONTAL)
    assert 0.15 < five.mean() < 0.6
    square = np.array([[10, 10], [100, 10], [100, 90], [10, 90], [50, 50], [60, 60]], np.float32)
    many = masker(crop, FRONTAL, square)
    np.testing.assert_array_equal(many, hull_mask((128, 128), square))
    assert many.sum() == 91 * 81


def test_segformer_must_be_named_and_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"face\.segformer"):
        load_masker(FaceConfig(mask="segformer"))
    with pytest.raises(ValueError, match="no SegFormer face parser"):
        load_masker(FaceConfig(mask="segformer", segformer=str(tmp_path / "nowhere")))


@pytest.fixture(scope="module")
def parser_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_labels=19,
            num_encoder_blocks=4,
            depths=[1, 1, 1, 1],
            hidden_sizes=[8, 8, 8, 8],
            num_attention_heads=[1, 1, 1, 1],
            decoder_hidden_size=8,
        )
    )
    with torch.no_grad():
        model.decode_head.classifier.weight.zero_()
        model.decode_head.classifier.bias.zero_()
        model.decode_head.classifier.bias[13] = 1  # hair everywhere
    folder = tmp_path_factory.mktemp("parser")
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 0), ({"mask_hair": True}, 1), ({"segformer_face_classes": (1, 13)}, 1)],
)
def test_segformer_classes_are_settings(parser_folder: str, settings: dict, expected: int) -> None:
    masker = load_masker(FaceConfig(mask="segformer", segformer=parser_folder, **settings))
    mask = masker(np.zeros((48, 64, 3), np.uint8), FRONTAL)
    assert mask.shape == (48, 64)
    assert (mask == expected).all()


def test_a_class_that_the_parser_lacks_is_refused(parser_folder: str) -> None:
    config = FaceConfig(mask="segformer", segformer=parser_folder, segformer_face_classes=(1, 19))
    with pytest.raises(ValueError, match="beyond the 19 classes"):
        load_masker(config)


def test_everything_outside_the_mask_gets_one_colour() -> None:
    mask = np.zeros((48, 64), np.uint8)
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    mask[10:20, 10:20] = 255
    painted = paint_outside(picture, mask, (1, 2, 3))
    np.testing.assert_array_equal(painted[10:20, 10:20], picture[10:20, 10:20])
    assert (painted[mask == 0] == [1, 2, 3]).all()
    assert painted.dtype == np.uint8
