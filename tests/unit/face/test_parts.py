import numpy as np
import pytest

from components.face import FaceConfig, part_of, parts_mask


def half(side: int, axis: int, upper: bool) -> np.ndarray:
    picture = np.zeros((side, side), np.uint8)
    window = slice(None, side // 2) if upper else slice(side // 2, None)
    picture[window if axis == 0 else (slice(None), window)] = 255
    return picture


def test_later_parts_lie_over_earlier_ones() -> None:
    parts = {"skin": half(512, 1, True), "hair": half(512, 0, True)}
    mask = parts_mask(parts, (100, 200), FaceConfig())
    assert mask.shape == (100, 200)
    assert (mask[50:, :100] == 255).all()
    assert (mask[:50] == 0).all()  # hair over skin, and hair does not count
    assert (mask[50:, 100:] == 0).all()
    hairy = parts_mask(parts, (100, 200), FaceConfig(mask_hair=True))
    assert (hairy[:50] == 255).all()


def test_which_parts_count_is_a_setting() -> None:
    parts = {"skin": half(64, 0, True), "neck": half(64, 0, False)[..., None].repeat(3, 2)}
    assert (parts_mask(parts, (64, 64), FaceConfig())[32:] == 0).all()
    assert (parts_mask(parts, (64, 64), FaceConfig(segformer_face_classes=(1, 17))) == 255).all()


def test_names_of_parts() -> None:
    assert part_of("celeba/CelebAMask-HQ-mask-anno/0/00012_l_brow.png") == "l_brow"
    assert part_of("00012_skin.png") == "skin"
    with pytest.raises(ValueError, match=r"mask parts \['beard'\] are not known; known: skin"):
        parts_mask({"beard": half(8, 0, True)}, (8, 8), FaceConfig())
