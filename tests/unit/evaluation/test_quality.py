"""FID and KID against closed forms and planted generators; sharpness; pose and expression."""

import numpy as np
import pytest
import torch

from components.evaluation import metrics
from components.evaluation.quality import (
    frechet_distance,
    inception_features,
    kernel_distance,
    measure_quality,
    sharpness,
)
from components.portraits.face_nets import export_onnx
from components.portraits.world import portrait


def test_fid_of_two_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(4000, 3))
    made = rng.normal(size=(4000, 3)) * 2 + np.array([1.0, 0, 0])
    assert frechet_distance(real, made) == pytest.approx(1 + 3 * (2 - 1) ** 2, rel=0.1)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def test_kid_is_unbiased_where_fid_leans_upwards_and_the_same_seed_tells_the_same():
    rng = np.random.default_rng(1)
    real, made = rng.normal(size=(40, 16)), rng.normal(size=(40, 16))
    assert abs(kernel_distance(real, made, 0)) < 0.5
    assert frechet_distance(real, made) > 1
    assert kernel_distance(real, made + 1, 3) == kernel_distance(real, made + 1, 3)
    assert kernel_distance(real, made + 1, 3) > abs(kernel_distance(real, made, 3))


def test_too_few_pictures_give_no_figure():
    two = np.eye(2)
    assert frechet_distance(two[:1], two) is None
    assert kernel_distance(two, two, 0) is None


def test_noise_is_farther_from_faces_than_other_faces_are():
    def faces(start):
        return [portrait(700_000 + start + i, 0, 64).image_uint8 for i in range(12)]

    def features(pictures):
        return metrics.picture_vectors(np.stack(pictures), side=4)

    noise = list(np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3)).astype(np.uint8))
    found = measure_quality(faces(0), faces(50), noise, features, "small pictures", seed=0)
    assert found.features == "small pictures"
    assert found.fid < found.fid_base
    assert found.kid < found.kid_base
    assert (found.real, found.generated, found.base) == (12, 12, 12)


def test_blur_is_seen():
    import cv2

    picture = portrait(700_000, 0, 64).image_uint8
    assert sharpness([cv2.GaussianBlur(picture, (0, 0), 2)]) < 0.5 * sharpness([picture])


FACE = np.array([[20.0, 30], [40, 30], [30, 42], [23, 52], [37, 52]])


def test_pose_and_expression_know_nothing_of_place_and_size():
    pose, expression = metrics.face_shape(np.stack([FACE, FACE * 2 + 7]))
    np.testing.assert_allclose(pose[0], pose[1])
    np.testing.assert_allclose(expression[0], expression[1])
    np.testing.assert_allclose(pose[0], [0, 0.6, 0])
    np.testing.assert_allclose(expression[0], [0.7, 1.1])


def test_turning_changes_pose_and_smiling_changes_expression():
    turned, smiling = FACE.copy(), FACE.copy()
    turned[2, 0] += 4
    smiling[3, 0] -= 3
    smiling[4, 0] += 3
    rolled = FACE @ np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    pose, expression = metrics.face_shape(np.stack([FACE, turned, smiling, rolled]))
    np.testing.assert_allclose(metrics.shape_change(pose, pose[0]), [0, 0.2, 0, 0.3], atol=1e-9)
    np.testing.assert_allclose(metrics.shape_change(expression, expression[0]), [0, 0, 0.3, 0], atol=1e-9)


def test_features_of_an_onnx_are_those_of_the_network_on_resized_pictures(tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, 2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    export_onnx(net, tmp_path / "inception.onnx", size=32)
    pictures = np.random.default_rng(0).integers(0, 256, (35, 32, 32, 3), dtype=np.uint8)
    found = inception_features(tmp_path / "inception.onnx")(list(pictures))
    blobs = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        assert np.allclose(found, net(blobs).numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="evaluation.inception_onnx"):
        inception_features(tmp_path / "none.onnx")
