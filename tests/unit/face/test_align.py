import warnings

import numpy as np
import pytest

from components.face import align_face, crop_square, similarity_transform, transform_points

LANDMARKS = np.array([[60, 70], [110, 66], [88, 95], [66, 120], [108, 116]], np.float32)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def spot(height: int, width: int, x: float, y: float, sigma: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def centre_of(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float) ** 2
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("size", [112, 224])
def test_alignment_is_insightfaces(size: int) -> None:
    from insightface.utils.face_align import norm_crop

    image = noise(180, 200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = norm_crop(image, LANDMARKS, image_size=size)
    difference = np.abs(align_face(image, LANDMARKS, size).astype(int) - theirs.astype(int))
    assert difference.max() <= 1


def test_similarity_transform_is_scikit_images() -> None:
    from skimage.transform import SimilarityTransform

    target = np.random.default_rng(3).normal(size=(5, 2)) * 30
    theirs = SimilarityTransform.from_estimate(LANDMARKS, target)
    np.testing.assert_allclose(similarity_transform(LANDMARKS, target), theirs.params[:2], atol=1e-5)


def test_coinciding_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.ones((5, 2)), LANDMARKS)


@pytest.mark.parametrize(
    ("shape", "at", "sigma", "size"),
    [
        ((300, 400), (210.0, 140.0), 6, 64),  # shrinks a little
        ((300, 400), (210.0, 140.0), 6, 512),  # enlarges
        ((2000, 2400), (1200.5, 900.25), 40, 64),  # shrinks by whole blocks first
        ((90, 90), (80.0, 12.0), 4, 96),  # at the edge
    ],
)
@pytest.mark.parametrize("expand", [1.3, 3.0])
def test_the_matrix_says_where_the_crop_shows_a_point(
    shape: tuple[int, int], at: tuple[float, float], sigma: float, size: int, expand: float
) -> None:
    image = spot(*shape, *at, sigma)
    half = 5 * sigma
    bbox = np.array([at[0] - half, at[1] - half, at[0] + half, at[1] + half])
    crop, matrix = crop_square(image, bbox, expand, size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    if at[0] + expand * half < shape[1] and at[1] - expand * half > 0:  # else the mirror image counts too
        np.testing.assert_allclose(
            centre_of(crop), transform_points(matrix, np.array([at]))[0], atol=0.05 * size / 32
        )


def test_beyond_the_edge_the_photo_is_mirrored() -> None:
    image = noise(40, 40)
    crop, matrix = crop_square(image, np.array([0, 0, 20, 20]), 3.0, 60)  # 60 px square from (-20, -20)
    np.testing.assert_array_equal(crop, np.pad(image, ((20, 0), (20, 0), (0, 0)), mode="reflect"))
    np.testing.assert_array_equal(matrix, [[1, 0, 20], [0, 1, 20]])


def test_a_square_far_larger_than_the_photo_still_works() -> None:
    crop, _ = crop_square(noise(8, 5), np.array([0, 0, 5, 8]), 10.0, 32)
    np.testing.assert_array_equal(np.isfinite(crop), True)
    crop, _ = crop_square(noise(1, 1), np.array([0, 0, 1, 1]), 3.0, 16)
    assert len(np.unique(crop.reshape(-1, 3), axis=0)) == 1


def test_shrinking_averages_areas() -> None:
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    crop, _ = crop_square(stripes, np.array([64, 64, 576, 576]), 1.0, 32)
    assert np.abs(crop.astype(int) - 127).max() <= 1  # sampling would give 0 or 255


def test_an_empty_box_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        crop_square(noise(20, 20), np.array([5, 5, 5, 9]), 1.3, 16)


def test_a_huge_box_needs_little_memory() -> None:
    import tracemalloc

    image = np.zeros((3000, 3000, 3), np.uint8)
    tracemalloc.start()
    crop_square(image, np.array([0, 0, 3000, 3000]), 3.0, 64)  # the square itself would be 243 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
