from pathlib import Path

import insightface
import numpy as np
import pytest
import skimage
from PIL import Image

from components.face import Face, FaceConfig, load_detector
from components.face.detect import resize_for_detection

GROUP_PHOTO = Path(insightface.__file__).parent / "data/images/t1.jpg"


@pytest.fixture(scope="module")
def detector():
    return load_detector(FaceConfig())


def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def test_real_photographs_give_their_faces(detector) -> None:
    group = np.asarray(Image.open(GROUP_PHOTO).convert("RGB"))
    assert len(detector(group)) == 6
    assert len(detector(astronaut())) == 1


def test_a_face_is_in_original_pixels_and_insightface_order(detector) -> None:
    (face,) = detector(astronaut())
    assert isinstance(face, Face)
    assert face.bbox_xyxy.dtype == face.landmarks_xy.dtype == np.float32
    x0, y0, x1, y1 = face.bbox_xyxy
    assert 150 < x0 < 190
    assert 250 < x1 < 290
    assert 50 < y0 < 90
    assert 150 < y1 < 220
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks_xy
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    assert 0.5 <= face.score <= 1


def test_the_largest_face_comes_first(detector) -> None:
    photo = np.asarray(Image.fromarray(astronaut()).resize((256, 256)))
    canvas = np.full((512, 800, 3), 128, np.uint8)
    canvas[:256, :256], canvas[:, 288:] = photo, astronaut()
    faces = detector(canvas)
    assert [face.bbox_xyxy[0] > 280 for face in faces] == [True, False]


@pytest.mark.parametrize("side", [64, 128, 512, 2048])
def test_size_hardly_moves_a_face(detector, side: int) -> None:
    (reference,) = detector(astronaut())
    crop = astronaut()[20:276, 90:346]  # 256 px around the head
    resized = np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC))
    faces = detector(resized)
    assert len(faces) == 1
    back = faces[0].landmarks_xy * (256 / side) + [90, 20]
    np.testing.assert_allclose(back, reference.landmarks_xy, atol=6)


def test_a_scene_without_people_gives_no_face(detector) -> None:
    assert detector(skimage.data.coffee()) == []
    assert detector(np.zeros((1, 1, 3), np.uint8)) == []


def test_faces_of_25_pixels_are_kept_and_other_things_are_not(detector) -> None:
    pictures = (skimage.data.lfw_subset()[::3] * 255).astype(np.uint8)  # 100 faces, then 100 other patches
    found = [len(detector(np.repeat(picture[..., None], 3, axis=2))) for picture in pictures]
    assert found[:34] == [1] * 34
    assert found[34:] == [0] * 33


def test_drawn_people_are_found_where_they_were_drawn(detector) -> None:
    from components.portraits.world import portrait

    for person in range(12):
        drawn = portrait(person, 0, 128)
        (face,) = detector(drawn.image_uint8)
        off = np.linalg.norm(face.landmarks_xy - drawn.landmarks_xy, axis=1)
        assert off.mean() < 5, f"person {person}: {off}"


def test_detection_prints_nothing(capfd) -> None:
    load_detector(FaceConfig())(np.zeros((64, 64, 3), np.uint8))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3000, 1500), (960, 480)), ((64, 50), (128, 100)), ((100, 30), (200, 60)), ((200, 700), (200, 700))],
)
def test_size_for_detection(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    resized, scale_xy = resize_for_detection(np.zeros((*shape, 3), np.uint8), 128, 960)
    assert resized.shape[:2] == expected
    np.testing.assert_allclose(scale_xy, [expected[1] / shape[1], expected[0] / shape[0]])


def test_a_pack_is_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs face\.pack"):
        load_detector(FaceConfig(detector="insightface"))
    with pytest.raises(ValueError, match="no insightface pack folder"):
        load_detector(FaceConfig(detector="insightface", pack=str(tmp_path / "buffalo_l")))
    with pytest.raises(ValueError, match="holds no"):
        load_detector(FaceConfig(detector="insightface", pack=str(tmp_path)))


def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(ValueError, match="onnxruntime-gpu"):
        load_detector(FaceConfig(), device="cuda")
