"""MLflow's experiment is made once, whoever else makes it at the same moment."""

from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.core import TrackingConfig, experiment_id


@pytest.fixture
def tracking(tmp_path) -> TrackingConfig:
    return TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=str(tmp_path / "files"))


def test_runs_that_begin_at_the_same_moment_share_it(tracking):
    client = MlflowClient(tracking_uri=tracking.uri)
    answers = iter([None])  # what the slower of two runs was told before it tried to make it

    def by_name(name):
        return next(answers, client.get_experiment_by_name(name))

    slower = SimpleNamespace(get_experiment_by_name=by_name, create_experiment=client.create_experiment)
    made = experiment_id(client, tracking)
    assert experiment_id(client, tracking) == made
    assert experiment_id(slower, tracking) == made
    assert client.get_experiment(made).artifact_location.startswith("file:///")


def test_another_fault_is_told(tracking):
    def refuse(*_args, **_kwargs):
        raise MlflowException("no room")

    client = SimpleNamespace(get_experiment_by_name=lambda _: None, create_experiment=refuse)
    with pytest.raises(MlflowException, match="no room"):
        experiment_id(client, tracking)
