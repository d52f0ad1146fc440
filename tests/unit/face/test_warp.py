"""The differentiable face alignment against insightface's own, and its gradients."""

import numpy as np
import pytest
import torch
from insightface.utils import face_align

from components.face.warp import ARCFACE_TEMPLATE_XY, similarity_to_template, warp_faces


def rotated_template(angle, scale, shift):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    jitter = np.random.default_rng(3).normal(0, 1.5, (5, 2))
    return ((np.array(ARCFACE_TEMPLATE_XY) - 56) @ turn.T * scale + shift + jitter).astype(np.float32)


LANDMARKS = [
    rotated_template(0.0, 1.0, (90, 80)),
    rotated_template(0.5, 1.6, (70, 95)),
    rotated_template(-2, 0.4, (20, 140)),
]


def smooth_image(height=160, width=180):
    y, x = np.mgrid[:height, :width]
    waves = [127 + 100 * np.sin(x / a + y / b) for a, b in ((9, 13), (17, -7), (11, 19))]
    return np.stack(waves, -1).round().astype(np.uint8)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("landmarks", LANDMARKS)
def test_matrix_and_pixels_equal_insightface(landmarks):
    image = smooth_image()
    expected, matrix = face_align.norm_crop2(image, landmarks)
    batch = torch.from_numpy(landmarks)[None]
    np.testing.assert_allclose(similarity_to_template(batch)[0], matrix, atol=1e-4)
    image_m11 = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    ours = ((warp_faces(image_m11, batch)[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    # cv2 rounds its weights to 1/32 pixel and its result to whole grey values
    assert np.abs(ours - expected).mean() < 0.5
    assert np.abs(ours - expected).max() < 12


def test_beyond_the_edge_is_black():
    far_left = torch.tensor(ARCFACE_TEMPLATE_XY)[None] - torch.tensor([60.0, 0.0])
    warped = warp_faces(torch.ones(1, 3, 112, 112), far_left)
    assert (warped[..., :59] == -1).all()
    torch.testing.assert_close(warped[..., 61:], torch.ones(1, 3, 112, 51))


def test_template_landmarks_are_the_identity():
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    template = torch.tensor(ARCFACE_TEMPLATE_XY).expand(2, 5, 2)
    torch.testing.assert_close(warp_faces(images, template), images, atol=2e-4, rtol=0)


def test_each_image_uses_its_own_landmarks_and_size_scales():
    image_m11 = torch.from_numpy(smooth_image()).permute(2, 0, 1)[None] / 127.5 - 1
    batch = torch.from_numpy(np.stack(LANDMARKS))
    together = warp_faces(image_m11.expand(3, -1, -1, -1), batch, size=56)
    assert together.shape == (3, 3, 56, 56)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], warp_faces(image_m11, batch[i : i + 1], size=56))


def test_gradient_reaches_the_images_alone():
    images = torch.rand(1, 2, 20, 20, dtype=torch.float64).requires_grad_()
    landmarks = torch.from_numpy(LANDMARKS[1][None]).double() / 9
    landmarks.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: warp_faces(x, landmarks, size=12), (images,))
    warp_faces(images, landmarks).sum().backward()
    assert landmarks.grad is None


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"must be \(2, 5, 2\) for 2 images, found \(1, 5, 2\)"):
        warp_faces(torch.zeros(2, 3, 8, 8), torch.zeros(1, 5, 2))
    with pytest.raises(ValueError, match="one point"):
        warp_faces(torch.zeros(1, 3, 8, 8), torch.ones(1, 5, 2))


def test_centres_are_where_the_aligned_face_has_its_middle():
    from components.face.warp import aligned_centres

    landmarks = torch.tensor(ARCFACE_TEMPLATE_XY, dtype=torch.float64)
    moved = torch.stack([landmarks, 2 * landmarks + 10])
    torch.testing.assert_close(
        aligned_centres(moved), torch.tensor([[55.5, 55.5], [121.0, 121.0]], dtype=torch.float64)
    )
