"""The best checkpoint by identity similarity; the grid that it is judged by, and what counts as similar."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from components.face import FaceConfig
from components.training.checkpoint import check_checkpoint, load_checkpoint
from components.training.similarity import PictureIdentity, Similarity
from components.training.tracking import read_history
from tests.unit.training.made_runs import made_worker, run_alone

EYES = np.array([[30.0, 40], [80, 40], [55, 60], [35, 85], [75, 85]], np.float32)


class Colour:
    """Identity of a picture: its mean colour."""

    input_size = 112

    def embed(self, faces):
        means = faces.reshape(len(faces), -1, 3).mean(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_similarity_counts_a_lost_face_as_nothing():
    from components.face import Face

    measure = PictureIdentity(FaceConfig(), None)
    measure._networks = (
        lambda picture: [] if picture.max() == 0 else [Face(np.zeros(4, np.float32), EYES, 1.0)],
        Colour(),
    )
    pictures = np.zeros((2, 2, 112, 112, 3), np.uint8)
    pictures[0, :, ..., 0] = 200  # red twice
    pictures[1, 0, ..., 1] = 200  # green once; the other picture shows no face
    red, green = np.eye(3, dtype=np.float32)[:2]
    found = measure.measure(pictures, [red, green])
    assert found == Similarity(pytest.approx(0.75), 0.75)
    assert measure.measure(pictures, [green, red]).mean == pytest.approx(0)


def test_without_an_identity_network_the_grid_is_drawn_all_the_same(tmp_path, caplog):
    measure = PictureIdentity(FaceConfig(), tmp_path)
    assert measure.measure(np.zeros((1, 1, 8, 8, 3), np.uint8), [np.zeros(3, np.float32)]) is None
    assert "identity similarity is not measured" in caplog.text


@pytest.fixture(scope="module")
def judged(base, manifest, tmp_path_factory):
    """A run whose similarity is made up: .2, .5, .3 at steps 2, 4 and 6."""
    from tests.unit.training.made_runs import made_job

    job = made_job(
        tmp_path_factory.mktemp("judged") / "run", base, manifest, steps=8, checkpoint_every=8, ema_decay=0.9,
        validation={"timesteps": 1, "sample_every": 2, "sample_people": 2, "sample_steps": 2},
    )  # fmt: skip
    made_up = {2: 0.2, 4: 0.5, 6: 0.3, 8: 0.4}
    worker = made_worker(job)
    drawn = worker.watch.draw
    worker.watch._identity.measure = lambda pictures, references: Similarity(made_up[worker.state.step], 1.0)
    worker.watch.draw = lambda step, tracker: drawn(step, tracker)
    kept_states = {}
    save_best = worker._keep_best

    def keep_best(similarity):
        save_best(similarity)
        kept_states[worker.state.step] = worker.ema.whole()

    worker._keep_best = keep_best
    worker.resume(None)
    worker.run(lambda step, folder: None)
    return (
        job,
        worker,
        {step: {n: v.clone() for n, v in state.items()} for step, state in kept_states.items()},
    )


def test_the_best_state_is_kept_with_its_adapter(judged):
    job, worker, _ = judged
    best = job.folder / "best"
    check_checkpoint_beside_adapter(best)
    assert json.loads((best / "state.json").read_text())["step"] == 4
    about = json.loads((best / "adapter.json").read_text())["training_run"]
    assert (about["step"], about["identity_similarity"]) == (4, 0.5)
    saved = load_file(best / "adapter.safetensors")
    average = load_file(best / "ema.safetensors")
    assert all(torch.equal(saved[name], average[name]) for name in saved)  # the average is what is judged
    outcome = json.loads((job.folder / "outcome.json").read_text())
    assert (outcome["identity_similarity"], outcome["best_identity_similarity"]) == (0.4, 0.5)
    assert worker.state.best == 0.5


def check_checkpoint_beside_adapter(folder):
    listing = json.loads((folder / "files.json").read_text())
    assert {"state.json", "state.safetensors", "ema.safetensors"} <= listing.keys()
    check_checkpoint(folder)


def test_it_can_be_gone_on_from(judged, base, manifest, tmp_path):
    from tests.unit.training.made_runs import made_job

    job = made_job(tmp_path / "run", base, manifest, ema_decay=0.9)
    worker = made_worker(job)
    state, average = load_checkpoint(worker.engine, worker.adapter, judged[0].folder / "best")
    assert (state.step, state.best) == (4, 0.5)
    assert average is not None


def test_the_log_tells_similarity_at_each_grid(judged):
    rows = [row for row in read_history(judged[0].folder) if "identity_similarity" in row]
    assert [(row["step"], row["identity_similarity"]) for row in rows] == [
        (2, 0.2),
        (4, 0.5),
        (6, 0.3),
        (8, 0.4),
    ]


def test_a_look_at_the_average_leaves_the_run_as_it_was(judged, base, manifest, tmp_path):
    """Losses with grids on the way are those without."""
    from tests.unit.training.made_runs import made_job

    job = made_job(
        tmp_path / "run", base, manifest, steps=8, checkpoint_every=8, ema_decay=0.9,
        validation={"timesteps": 1, "sample_people": 0},
    )  # fmt: skip
    run_alone(job)
    assert losses_of(job.folder) == losses_of(judged[0].folder)


def losses_of(folder):
    return [row["loss"] for row in read_history(folder) if "loss" in row]


def test_the_grid_is_drawn_from_fixed_noise(judged, base, manifest, tmp_path):
    """The same weights give the same pictures, at whatever step; other weights show the same people."""
    job, worker, _ = judged
    worker.watch.draw(99, worker.tracker)
    last, again = (Image.open(job.folder / "samples" / f"step_{step:06d}.png") for step in (8, 99))
    assert np.array_equal(np.asarray(last), np.asarray(again))
