"""Training on Ray and DeepSpeed: a killed worker changes nothing, and one worker agrees with two."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.core import RuntimeConfig, TrackingConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.training import TrainConfig, train
from components.training.launch import claim_folder, launch
from components.training.stage import make_job
from components.training.tracking import read_history
from tests.factories import tiny_base
from tests.unit.training.made_runs import run_alone
from tests.unit.training.made_shards import made_shards

EXACT = ("step", "loss", "diffusion", "face", "text_regularizer", "visual_regularizer", "gradient_norm")
SETTINGS = {
    "steps": 20,
    "global_batch_size": 8,
    "num_workers": 2,
    "checkpoint_every": 8,
    "log_every": 1,
    "max_failures": 1,
    "fusion": {"warmup_steps": 5},
    "validation": {"timesteps": 2, "sample_people": 2, "sample_steps": 2},
}


def kill_once(rank: int, step: int, marker: Path):
    """A hook that kills one worker before one step, as a lost machine would; once, whatever restarts."""

    def hook(at_rank: int, at_step: int) -> None:  # nested, so that it travels to the workers by value
        if (at_rank, at_step) == (rank, step) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def losses(folder: Path) -> list[dict[str, float]]:
    return [{name: row[name] for name in EXACT} for row in read_history(folder) if "loss" in row]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    base = tiny_base(folder / "base")
    return {
        "model": ModelConfig(base=str(base)),
        "face": FaceConfig(),
        "runtime": RuntimeConfig(device="cpu", num_cpus=2),
        "tracking": TrackingConfig(
            uri=f"sqlite:///{folder}/mlflow.db", artifact_location=str(folder / "artifacts")
        ),
        "manifest": made_shards(folder / "shards", base),
    }


@pytest.fixture(scope="module")
def undisturbed(parts, ray_local, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return train(
        config=TrainConfig.parse(SETTINGS, source="a test"), **parts, folder=folder, run_name="undisturbed"
    )


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
    config = TrainConfig.parse(SETTINGS, source="a test")
    job = make_job(config, **parts, folder=tmp_path / "run", run_name="killed")
    claim_folder(job)
    marker = tmp_path / "killed"
    outcome = launch(replace(job, hook=kill_once(1, 13, marker)))
    assert marker.exists()
    assert outcome["step"] == 20
    assert losses(job.folder) == losses(Path(undisturbed.folder))
    expected, found = load_file(undisturbed.adapter), load_file(job.folder / "adapter.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert outcome["reference_gain"] == undisturbed.reference_gain


def test_one_worker_agrees_with_two(undisturbed, parts, ray_local, tmp_path):
    config = TrainConfig.parse(SETTINGS | {"num_workers": 1}, source="a test")
    alone = train(config=config, **parts, folder=tmp_path / "run", run_name="alone")
    for one, two in zip(losses(Path(alone.folder)), losses(Path(undisturbed.folder)), strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-5)
    assert alone.reference_gain == pytest.approx(undisturbed.reference_gain, abs=1e-4)


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
    assert losses(folder) == losses(Path(undisturbed.folder))
    expected, found = load_file(undisturbed.adapter), load_file(folder / "adapter.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
def test_a_damaged_shard_stops_the_run_at_once_and_is_named(parts, ray_local, tmp_path):
    manifest = parts["manifest"]
    copy = shutil.copytree(manifest.folder, tmp_path / "shards")
    damaged = copy / next(shard.name for shard in manifest.shards if shard.split == "train")
    damaged.write_bytes(damaged.read_bytes()[:5000])
    given = parts | {"manifest": manifest.model_copy(update={"folder": str(copy)})}
    with pytest.raises(ValueError, match=f"stopped: .*{damaged.name}"):
        train(
            config=TrainConfig.parse(SETTINGS, source="a test"),
            **given,
            folder=tmp_path / "run",
            run_name="d",
        )
