import io

import numpy as np
import pytest
from PIL import Image

from components.face import Face, FaceConfig, load_detector, load_masker, paint_outside
from components.inference import FaceError, PhotoRules
from components.inference.photo import crop_start, find_face, read_photo
from components.prepare.transforms import cut_face

RULES = PhotoRules()


def png(array: np.ndarray, **info) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", **info)
    return buffer.getvalue()


def test_a_path_its_bytes_its_pixels_and_its_image_are_one_photo(photos):
    pixels = read_photo(photos[0], RULES)
    for same in (str(photos[0]), photos[0].read_bytes(), pixels, Image.open(photos[0])):
        assert np.array_equal(read_photo(same, RULES), pixels)


def test_exif_turns_the_photo(photos):
    array = np.zeros((4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert read_photo(png(array, exif=exif), RULES).shape == (6, 4, 3)


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        ("nowhere.png", "no photo at nowhere.png"),
        (b"hello", "not_an_image"),
        (b"", "empty_file"),
        (png(np.zeros((64, 64, 3), np.uint8))[:-30], "damaged"),
        (np.zeros((4, 4), np.uint8), "must be uint8"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image"),
    ],
)
def test_what_is_no_photo_is_refused_plainly(photo, message):
    with pytest.raises(ValueError, match=message):
        read_photo(photo, RULES)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    bomb = png(np.zeros((1000, 1000, 3), np.uint8))
    with pytest.raises(ValueError, match="1000 x 1000, at most 500000 pixels"):
        read_photo(bomb, PhotoRules(max_pixels=500_000))


def test_a_file_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(2 * 2**20)
    with pytest.raises(ValueError, match="has 2 MB; allowed: 1"):
        read_photo(path, PhotoRules(max_file_mb=1))


def test_no_face_or_a_tiny_one_is_refused(personalizer, photos):
    with pytest.raises(ValueError, match="no face found"):
        personalizer.card(np.full((128, 128, 3), 127, np.uint8))
    tiny = type(personalizer).identity_crop
    rules = personalizer.rules
    try:
        personalizer.rules = PhotoRules(min_face_px=4000)
        with pytest.raises(ValueError, match="at least 4000 needed"):
            tiny(personalizer, photos[0])
    finally:
        personalizer.rules = rules


def faces(*widths: float):
    """A detector that finds faces of these widths, largest first."""
    found = [
        Face(np.array([0, 0, width, width], np.float32), np.zeros((5, 2), np.float32), 0.9)
        for width in sorted(widths, reverse=True)
    ]
    return lambda _image: found


def test_several_faces_are_refused_with_a_type_where_the_rules_say_so():
    image, reject = np.zeros((9, 9, 3), np.uint8), PhotoRules(several_faces="reject", min_face_px=24)
    with pytest.raises(FaceError, match=r"several faces in the photo \(2\): crop it") as caught:
        find_face(image, faces(80, 40, 10), reject)
    assert caught.value.reason == "several_faces"
    assert find_face(image, faces(80, 10), reject).size_px == 80  # one below the least width does not count
    assert find_face(image, faces(80, 40), PhotoRules()).size_px == 80  # by default the largest
    for detector, reason in ((faces(), "no_face"), (faces(9), "tiny_face")):
        with pytest.raises(FaceError) as caught:
            find_face(image, detector, reject)
        assert caught.value.reason == reason


def test_two_people_in_a_photo_are_refused_by_the_whole_chain(personalizer, photos):
    two = np.concatenate([read_photo(photo, RULES) for photo in photos[:2]], axis=1)
    assert len(load_detector(FaceConfig())(two)) == 2
    rules = personalizer.rules
    try:
        personalizer.rules = PhotoRules(several_faces="reject")
        with pytest.raises(FaceError, match="several faces"):
            personalizer.card(two)
    finally:
        personalizer.rules = rules


def test_the_identity_crop_is_the_one_of_preparation_pixel_by_pixel(personalizer, photos):
    detector, masker = load_detector(FaceConfig()), load_masker(FaceConfig())
    extractor = personalizer.extractor
    for photo in photos[:3]:
        image = read_photo(photo, RULES)
        face = detector(image)[0]
        cut = cut_face(
            image, face, masker, identity_expand=1.3, identity_size=64, target_expand=3.0, resolution=64
        )
        prepared = paint_outside(cut.crop_uint8, cut.mask_uint8, extractor.fill_rgb_uint8)
        assert np.array_equal(personalizer.identity_crop(photo), prepared)
        assert np.array_equal(np.asarray(crop_start(image, detector, 64, RULES)), cut.target_uint8)
