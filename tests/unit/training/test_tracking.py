"""The run's record: rows that survive a crash, absolute places, an MLflow run that is gone on with."""

import json

import pytest
from PIL import Image

from components.core import TrackingConfig
from components.training.tracking import Tracker, absolute, close_run, flatten, open_run, read_history


@pytest.fixture
def tracking(tmp_path):
    return TrackingConfig(
        uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=f"file://{tmp_path}/artifacts"
    )


def test_relative_places_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = absolute(TrackingConfig())
    assert found.uri == f"sqlite:///{tmp_path}/runs/mlflow/mlflow.db"
    assert found.artifact_location == f"file://{tmp_path}/runs/mlflow/artifacts"
    assert absolute(found) == found
    server = TrackingConfig(uri="http://mlflow:5000", artifact_location="s3://bucket/photoverse")
    assert absolute(server) == server


def test_a_resumed_record_reads_like_an_undisturbed_one(tmp_path):
    first = Tracker(tmp_path, 0, None, None)
    for step in range(1, 6):
        first.log(step, {"loss": 0.1 * step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # the crash
    again = Tracker(tmp_path, 3, None, None)
    again.log(4, {"loss": 0.4})
    assert [row["step"] for row in read_history(tmp_path)] == [1, 2, 3, 4]
    assert read_history(tmp_path)[0]["loss"] == 0.1


def test_rows_pictures_and_files_reach_mlflow(tmp_path, tracking):
    from mlflow import MlflowClient

    run_id = open_run(tracking, "first", None, {"train": {"steps": 7}, "seed": 1})
    tracker = Tracker(tmp_path / "run", 0, tracking, run_id)
    tracker.log(1, {"loss": 0.5})
    tracker.log(2, {"loss": 0.25})
    tracker.log_image(Image.new("RGB", (4, 4)), "step_000002.png")
    tracker.flush()
    close_run(tracking, run_id, "FINISHED")
    client = MlflowClient(tracking_uri=tracking.uri)
    assert [m.value for m in client.get_metric_history(run_id, "train.loss")] == [0.5, 0.25]
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params == {"train.steps": "7", "seed": "1"}
    assert [item.path for item in client.list_artifacts(run_id, "samples")] == ["samples/step_000002.png"]


def test_a_resumed_run_goes_on_in_its_mlflow_run(tracking):
    run_id = open_run(tracking, "run", None, {})
    assert open_run(tracking, "run", run_id, {}) == run_id
    assert open_run(tracking, "run", "0" * 32, {}) != run_id  # one that the store does not know any more


def test_a_store_that_fails_costs_no_training(tmp_path, tracking, caplog):
    tracker = Tracker(tmp_path / "run", 0, tracking, "0" * 32)
    tracker.log(1, {"loss": 0.5})
    tracker.log_image(Image.new("RGB", (4, 4)), "x.png")
    tracker.flush()
    assert "MLflow did not take" in caplog.text
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text())["loss"] == 0.5
    assert (tmp_path / "run" / "samples" / "x.png").is_file()


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": [2]}) == {"a.b": 1, "a.c.d": None, "e": [2]}
