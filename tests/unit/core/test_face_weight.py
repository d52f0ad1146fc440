"""What each place counts: the face more than what is around, the mouth once more."""

import numpy as np
import pytest

from components.core import face_weight

# eyes, nose, mouth corners of a face in the middle of 64 pixels, and of a smaller one at the left
LANDMARKS_XY = np.array(
    [
        [[22, 24], [42, 24], [32, 34], [25, 44], [39, 44]],
        [[8, 30], [18, 30], [13, 35], [9, 40], [17, 40]],
    ],
    np.float32,
)


def test_the_face_counts_most_and_the_mean_is_one():
    weight = face_weight(LANDMARKS_XY, 64, 6.0)
    assert weight.shape == (2, 1, 64, 64)
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight.mean((1, 2, 3)), 1, rtol=1e-5)
    for one, landmarks in zip(weight[:, 0], LANDMARKS_XY, strict=True):
        x, y = landmarks.mean(0).round().astype(int)
        assert one[y, x] == pytest.approx(one.max(), rel=0.01)
    one = weight[1, 0]  # ten pixels from eyes to mouth, so the bell falls to exp(-1/2) at twelve
    assert one[35, 13] / one[35, 25] == pytest.approx(7 / (1 + 6 * np.exp(-0.5)), rel=0.02)
    assert one[35, 13] == pytest.approx(7 * one[0, 63], rel=0.02)  # seven times a place far away


def test_the_mouth_may_count_once_more():
    plain, weight = (face_weight(LANDMARKS_XY, 64, 6.0, mouth)[:, 0] for mouth in (0.0, 12.0))
    np.testing.assert_allclose(weight.mean((1, 2)), 1, rtol=1e-5)
    for more, less, landmarks in zip(weight, plain, LANDMARKS_XY, strict=True):
        y, x = np.unravel_index((more / less).argmax(), more.shape)
        assert np.abs([x, y] - landmarks[3:].mean(0)).max() < 2  # the face's own bell falls towards the chin


def test_where_nothing_counts_more_all_places_count_alike():
    np.testing.assert_allclose(face_weight(LANDMARKS_XY, 16, 0.0), 1)
