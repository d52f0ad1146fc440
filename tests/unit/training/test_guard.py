"""A loss that is no number, or explodes: the run stops with the last good state kept, or goes back."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from components.training.checkpoint import check_checkpoint
from components.training.guard import SETTLED, judge, running_mean
from components.training.tracking import read_history
from tests.unit.training.made_groups import run_group
from tests.unit.training.made_runs import made_worker, run_alone
from tests.unit.training.test_loop import losses

BARE = {"validation": {"timesteps": 1, "sample_people": 0}}


@pytest.mark.parametrize(
    ("loss", "mean", "step", "fault"),
    [
        (0.5, None, 0, None),
        (float("nan"), None, 0, "the loss is nan"),
        (float("inf"), 0.5, 3, "the loss is inf"),
        (50.0, 0.5, SETTLED - 1, None),  # the mean of a few steps says little
        (50.0, 0.5, SETTLED, "more than 20 times its running mean 0.5"),
        (9.9, 0.5, 99, None),
    ],
)
def test_judgement(loss, mean, step, fault):
    found = judge(loss, mean, step, 20.0)
    assert (found is None) if fault is None else (fault in found)
    if math.isfinite(loss):
        assert judge(loss, mean, step, None) is None


def test_the_running_mean_starts_as_a_plain_mean_and_then_follows():
    mean = None
    for step, loss in enumerate([1.0, 2.0, 3.0]):
        mean = running_mean(mean, loss, step)
    assert mean == pytest.approx(2.0)
    for step in range(3, 600):
        mean = running_mean(mean, 7.0, step)
    assert mean == pytest.approx(7.0, rel=1e-3)


def spoiling(worker, at_step, times, factor):
    """From `at_step` on, `times` steps have their loss multiplied."""
    plain, left = worker.objective.__call__, [times]

    class Spoiled:
        config = worker.config

        def __call__(self, model, batch):
            terms = plain(model, batch)
            if worker.state.step < at_step or not left[0]:
                return terms
            left[0] -= 1
            if factor is None:  # a sound loss whose gradient is no number: that of a root at nought
                return terms + (terms * 0).abs().sqrt()
            return terms * factor

    worker.objective = Spoiled()


def run_spoiled(job, keep, **spoil):
    worker = made_worker(job)
    worker.resume(None)
    spoiling(worker, **spoil)
    worker.run(keep)
    return worker


def keeping(folder, kept):
    import shutil

    def keep(step, source):
        kept[step] = shutil.copytree(source, folder / f"kept-{step}", dirs_exist_ok=True)

    return keep


def test_a_stop_keeps_the_last_good_state_and_names_the_batch(make_job, finished):
    job, kept = make_job(checkpoint_every=3), {}
    run_spoiled(job, keeping(job.folder, kept), at_step=4, times=1, factor=float("nan"))
    error = json.loads((job.folder / "outcome.json").read_text())["error"]
    assert error.startswith("the loss is nan at step 5; the batch held ")
    assert error.endswith("the weights of step 4 are the last good ones and kept")
    assert sum(word.strip(",;").endswith("-0") for word in error.split()) == 8
    assert sorted(kept) == [3, 4]
    check_checkpoint(kept[4])
    again = make_job("again")
    run_alone(again, resume_from=kept[4])  # with the fault mended, nothing is lost
    whole, resumed = (load_file(each.folder / "adapter.safetensors") for each in (finished[0], again))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("stage", "at_step"), [(0, 4), (0, 1), (1, 4), pytest.param(1, 1, marks=pytest.mark.slow)]
)
def test_a_run_may_go_back_with_a_lower_rate(make_job, stage, at_step):
    settings = {"divergence": {"max_returns": 1, "rate_factor": 0.25}, "zero_stage": stage, "ema_decay": 0.9}
    job = make_job(checkpoint_every=3, **settings, **BARE)
    worker = run_spoiled(job, lambda step, folder: None, at_step=at_step, times=1, factor=float("inf"))
    assert worker.state.step == 6
    assert worker.state.returns == 1
    rows = [row for row in read_history(job.folder) if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    rates = [row["learning_rate"] for row in rows]
    full = 3 if at_step == 4 else 0  # back to the checkpoint of step 3, or to the start
    assert rates == pytest.approx([1e-4] * full + [0.25e-4] * (6 - full))
    if not full:  # nothing is left of the first try
        again = make_job(
            "again", optimizer={"learning_rate": 0.25e-4}, zero_stage=stage, ema_decay=0.9, **BARE
        )
        run_alone(again)
        assert losses(again.folder) == losses(job.folder)
    assert all(math.isfinite(row["loss"]) for row in rows)
    saved = load_file(job.folder / "adapter.safetensors")
    assert all(bool(value.isfinite().all()) for value in saved.values())


@pytest.mark.parametrize("stage", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_gradient_that_is_no_number_counts_too(make_job, stage):
    job = make_job(zero_stage=stage, divergence={"max_returns": 1}, **BARE)
    worker = run_spoiled(job, lambda step, folder: None, at_step=4, times=1, factor=None)
    assert (worker.state.step, worker.state.returns) == (6, 1)
    saved = load_file(job.folder / "adapter.safetensors")
    assert all(bool(value.isfinite().all()) for value in saved.values())


def test_a_fault_that_comes_again_ends_the_run(make_job):
    job = make_job(divergence={"max_returns": 2}, **BARE)
    worker = run_spoiled(job, lambda step, folder: None, at_step=4, times=99, factor=float("nan"))
    assert worker.state.returns == 2
    assert "the loss is nan at step 5" in json.loads((job.folder / "outcome.json").read_text())["error"]
    assert not (job.folder / "adapter.safetensors").exists()


def test_an_explosion_is_seen_before_the_weights_change(make_job):
    job = make_job(steps=14, checkpoint_every=14, divergence={"explosion_factor": 50.0}, **BARE)
    worker = run_spoiled(job, lambda step, folder: None, at_step=12, times=1, factor=1e4)
    error = json.loads((job.folder / "outcome.json").read_text())["error"]
    assert "more than 50 times its running mean" in error
    assert "the weights of step 12 are the last good ones" in error
    assert worker.state.step == 12


@pytest.mark.slow
def test_one_of_two_workers_has_the_fault_and_the_whole_batch_is_named(make_job, tmp_path):
    job = make_job(num_workers=2, divergence={"explosion_factor": None}, **BARE)
    spoiled = replace(job, hook=spoil_features)
    run_group([spoiled], 2, tmp_path / "store")
    error = json.loads((job.folder / "outcome.json").read_text())["error"]
    assert "the loss is nan at step 3" in error
    assert sum(word.strip(",;").endswith("-0") for word in error.split()) == 8
    assert error.endswith("the weights of step 2 are the last good ones and kept")
    assert not (job.folder / "adapter.safetensors").exists()


def spoil_features(rank, inputs):
    """A damaged sample of the second worker."""
    if (rank, inputs.step) == (1, 2):
        inputs.micro_batches[0].features.fill_(float("nan"))
