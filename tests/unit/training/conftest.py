"""One tiny base and shards that fit it, for the whole session."""

from pathlib import Path

import pytest

from tests.factories import tiny_base
from tests.unit.training.made_runs import join_alone, made_job, run_alone
from tests.unit.training.made_shards import made_shards


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("training-base") / "base")


@pytest.fixture(scope="session")
def manifest(base, tmp_path_factory):
    return made_shards(tmp_path_factory.mktemp("training-shards"), base)


@pytest.fixture
def process_group():
    join_alone()


@pytest.fixture
def make_job(base, manifest, tmp_path):
    return lambda folder="run", **settings: made_job(tmp_path / folder, base, manifest, **settings)


@pytest.fixture(scope="session")
def run():
    return run_alone


@pytest.fixture(scope="session")
def finished(base, manifest, tmp_path_factory):
    """A run of six steps with these tests' defaults: (job, worker, checkpoints). Read it only."""
    job = made_job(tmp_path_factory.mktemp("finished") / "run", base, manifest)
    return job, *run_alone(job)
