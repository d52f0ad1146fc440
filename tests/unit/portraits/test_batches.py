"""Pictures as the parts see them: alignment, frames, spots, and what each place weighs."""

import numpy as np
import pytest

from components.portraits.pretrain.batches import (
    ARCFACE_TEMPLATE,
    aligned_face,
    frame,
    similarity,
    spotted,
    to_m11,
)
from components.portraits.pretrain.people import TRAIN_START, load_people
from components.portraits.pretrain.vae import aligned


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return load_people(tmp_path_factory.mktemp("people"), TRAIN_START, 4, 2, 64)


def test_similarity_undoes_a_turn_a_scale_and_a_shift():
    turn = np.array([[0.8, -0.6], [0.6, 0.8]]) * 1.7
    moved = ARCFACE_TEMPLATE @ turn.T + (5, -9)
    matrix = similarity(moved, ARCFACE_TEMPLATE)
    assert np.allclose(moved @ matrix[:, :2].T + matrix[:, 2], ARCFACE_TEMPLATE, atol=1e-3)


def test_differentiable_alignment_agrees_with_opencv(people):
    picture, landmarks = frame(people, 0, 64, None)
    warped = aligned(to_m11([picture]), landmarks[None])[0].permute(1, 2, 0).numpy()
    wanted = aligned_face(picture, landmarks).astype(np.float32) / 127.5 - 1
    assert np.abs(warped - wanted)[16:96, 16:96].mean() < 0.03


def test_frames_keep_landmarks_in_place(people):
    rng = np.random.default_rng(0)
    cut, landmarks = frame(people, 3, 64, rng)
    again = aligned_face(cut, landmarks).astype(int)
    wanted = aligned_face(people.pictures[3], people.landmarks[3]).astype(int)
    assert np.abs(again - wanted)[16:96, 16:96].mean() < 12


def test_spots_are_on_half_of_the_faces_and_never_large():
    face, rng = np.full((112, 112, 3), 120, np.uint8), np.random.default_rng(0)
    errors = np.array([(spotted(face, rng).astype(float) - face).std() for _ in range(200)])
    assert 0.35 < (errors == 0).mean() < 0.65
    assert 4 < errors[errors > 0].mean() < 16
    assert errors.max() < 1.2 * 24
