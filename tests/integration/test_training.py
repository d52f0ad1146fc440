"""Training on Ray and DeepSpeed: a killed worker changes nothing, and one worker agrees with two."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from components.training import TrainConfig, train
from components.training.launch import launch
from components.training.stage import make_job
from tests.integration.made_training import (
    SETTINGS,
    all_of,
    assert_same_run,
    disturbed_job,
    kill,
    losses,
    noted,
    noting,
    once,
)
from tests.unit.training.made_runs import run_alone


def test_the_record_and_mlflow_tell_the_run(undisturbed, parts):
    from mlflow import MlflowClient

    assert (undisturbed.count_in, undisturbed.count_out, undisturbed.step) == (160, 20, 20)
    assert Path(undisturbed.adapter).is_file()
    low, high = undisturbed.reference_gain_interval
    assert low <= undisturbed.reference_gain <= high
    run = MlflowClient(tracking_uri=parts["tracking"].uri).get_run(undisturbed.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["train.loss"] == pytest.approx(undisturbed.losses["loss"])
    assert run.data.metrics["train.reference_gain"] == pytest.approx(undisturbed.reference_gain)
    assert run.data.params["train.optimizer.learning_rate"] == "0.0001"
    client = MlflowClient(tracking_uri=parts["tracking"].uri)
    history = client.get_metric_history(undisturbed.mlflow_run_id, "train.loss")
    assert [metric.step for metric in history] == list(range(1, 21))
    artifacts = {
        item.path
        for folder in ("adapter", "samples")
        for item in client.list_artifacts(run.info.run_id, folder)
    }
    assert artifacts == {"adapter/adapter.safetensors", "adapter/adapter.json", "samples/step_000020.png"}


def test_a_killed_worker_changes_nothing(undisturbed, parts, ray_local, tmp_path):
    marker = tmp_path / "killed"
    job = disturbed_job(parts, tmp_path / "run", once(1, 13, marker, kill()))
    outcome = launch(job)
    assert marker.exists()
    assert outcome["step"] == 20
    assert_same_run(job.folder, Path(undisturbed.folder))
    assert outcome["reference_gain"] == undisturbed.reference_gain


def test_two_workers_go_on_where_one_was_killed(undisturbed, parts, ray_local, tmp_path):
    """One worker agrees with two up to there; then the same samples in the same order, the same losses."""
    notes = tmp_path / "notes"
    alone = all_of(once(0, 11, tmp_path / "killed", kill()), noting(notes / "one"))
    job = disturbed_job(parts, tmp_path / "run", alone, num_workers=1, max_failures=0)
    with pytest.raises(RuntimeError, match="the same run name goes on from the last"):
        launch(job)
    assert len(losses(job.folder)) == 11
    both = replace(job, config=TrainConfig.parse(SETTINGS, source="a test"), hook=noting(notes / "two"))
    outcome = launch(both)
    assert noted(notes / "two", range(8, 11)) == noted(
        notes / "one", range(8, 11)
    )  # done again after the kill
    for one, two in zip(losses(job.folder), losses(Path(undisturbed.folder)), strict=True):
        assert one == pytest.approx(two, rel=1e-5, abs=1e-5)
    assert outcome["reference_gain"] == pytest.approx(undisturbed.reference_gain, abs=1e-4)


def test_a_folder_of_another_run_is_refused(undisturbed, parts):
    folder = Path(undisturbed.folder)
    other = TrainConfig.parse(SETTINGS | {"steps": 30}, source="a test")
    with pytest.raises(ValueError, match=r"holds the run 'undisturbed' with other settings \(train differ\)"):
        train(config=other, **parts, folder=folder, run_name="undisturbed")
    with pytest.raises(ValueError, match=r"\(run_name differ\)"):
        train(config=TrainConfig.parse(SETTINGS, source="a test"), **parts, folder=folder, run_name="mine")


def test_one_worker_goes_on_where_two_stopped(undisturbed, parts, tmp_path):
    """The same samples in the same order from the checkpoint on, and the same losses to rounding."""
    checkpoints = sorted((Path(undisturbed.folder) / "checkpoints" / "undisturbed").glob("checkpoint_*/"))
    assert len(checkpoints) == 2  # steps 16 and 20: the one of step 8 was not to be kept
    config = TrainConfig.parse(SETTINGS | {"num_workers": 1}, source="a test")
    job = make_job(config, **parts, folder=tmp_path / "run", run_name="undisturbed")
    run_alone(replace(job, run_id=None), resume_from=checkpoints[0])
    found, expected = losses(job.folder), losses(Path(undisturbed.folder))[16:]
    assert [row["step"] for row in found] == [17, 18, 19, 20]
    for one, two in zip(found, expected, strict=True):
        assert one == pytest.approx(two, rel=1e-5, abs=1e-5)


RUN = """
import json, sys
from pathlib import Path
from components.core import RuntimeConfig, ShardManifest, TrackingConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.training import TrainConfig, train
given = json.loads(sys.argv[1])
train(
    config=TrainConfig.parse(given["train"], source="argv"),
    model=ModelConfig.parse(given["model"], source="argv"),
    face=FaceConfig(),
    runtime=RuntimeConfig.parse(given["runtime"], source="argv"),
    tracking=TrackingConfig.parse(given["tracking"], source="argv"),
    manifest=ShardManifest.load(Path(given["manifest"])),
    folder=Path(given["folder"]),
    run_name="driver",
)
"""


@pytest.mark.slow
def test_a_killed_driver_changes_nothing(undisturbed, parts, tmp_path):
    folder = tmp_path / "run"
    given = {name: parts[name].model_dump(mode="json") for name in ("model", "runtime", "tracking")}
    given |= {
        "train": SETTINGS,
        "folder": str(folder),
        "manifest": str(parts["manifest"].save(tmp_path / "m.json")),
    }
    command = [sys.executable, "-c", RUN, json.dumps(given)]
    first = subprocess.Popen(command)
    while len(losses(folder)) < 11:
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    before = len(losses(folder))
    assert before < 20
    assert subprocess.run(command, check=False).returncode == 0
    assert_same_run(folder, Path(undisturbed.folder))
