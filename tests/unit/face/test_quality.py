from pathlib import Path

import cv2
import insightface
import numpy as np
import pytest
import skimage
from PIL import Image

from components.face import ARCFACE_TEMPLATE_XY, FaceConfig, align_face, head_pose, load_detector, sharpness
from components.face.quality import HEAD_XYZ


def seen(yaw: float, roll: float, pitch: float = 0.0) -> np.ndarray:
    """The landmarks of the mean head, turned and photographed from afar."""
    y, r, p = np.radians([yaw, roll, pitch])
    around_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    around_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    around_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (HEAD_XYZ @ (around_z @ around_y @ around_x).T)[:, :2] * 1.7 + [300, 200]


@pytest.mark.parametrize(
    ("yaw", "roll", "pitch"), [(0, 0, 0), (30, 0, 0), (-55, 20, 10), (10, -80, -15), (5, 170, 0)]
)
def test_a_turned_head_is_measured(yaw: float, roll: float, pitch: float) -> None:
    np.testing.assert_allclose(head_pose(seen(yaw, roll, pitch)), (yaw, roll), atol=1e-6)


def test_the_template_looks_straight_ahead() -> None:
    yaw, roll = head_pose(ARCFACE_TEMPLATE_XY)
    assert abs(yaw) < 3
    assert abs(roll) < 1


def test_a_mirrored_photo_turns_the_other_way() -> None:
    photo = skimage.data.astronaut()[20:276, 90:346]
    detector = load_detector(FaceConfig())
    poses = [head_pose(detector(np.ascontiguousarray(p))[0].landmarks_xy) for p in (photo, photo[:, ::-1])]
    np.testing.assert_allclose(poses[0], -np.array(poses[1]), atol=6)  # the detector is no mirror of itself


def test_a_face_that_looks_to_the_left_has_a_negative_yaw() -> None:
    group = Image.open(Path(insightface.__file__).parent / "data/images/t1.jpg").convert("RGB")
    face = load_detector(FaceConfig())(np.asarray(group.crop((860, 35, 1055, 230))))[0]
    yaw, roll = head_pose(face.landmarks_xy)
    assert -75 < yaw < -30
    assert abs(roll) < 20


def test_landmarks_on_one_point_are_no_pose() -> None:
    assert head_pose(np.full((5, 2), 7.0)) == (0.0, 0.0)


def test_blur_lowers_sharpness() -> None:
    photo = skimage.data.astronaut()
    points = load_detector(FaceConfig())(photo)[0].landmarks_xy
    found = [
        sharpness(align_face(cv2.GaussianBlur(photo, (0, 0), s) if s else photo, points)) for s in (0, 1, 3)
    ]
    assert found[0] > 2 * found[1] > 4 * found[2]
    assert sharpness(np.full((112, 112, 3), 90, np.uint8)) == 0
