"""A store is the only thing that stages share: each begins on a machine that has nothing of the others."""

import _thread
import json
import shutil
import threading
import time
from pathlib import Path

import fsspec
import pytest
import yaml

from components.core import sha256_file
from components.inference import Ledger
from components.training.job import NOT_SENT
from flows.config import open_run
from flows.environment import PROJECT
from flows.services import HOST
from flows.stage_store import store_of
from tests.champion import CONSENT
from tests.integration.stage_runs import StageRun
from tests.object_store import bucket_in_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
STAGES = ("portraits", "prepare", "train", "evaluate", "promote", "personalize")


@pytest.fixture(scope="module")
def bucket():
    with bucket_in_environment(HOST) as found:
        yield found


@pytest.fixture(scope="module")
def profile(bucket, tiny_profile, tmp_path_factory) -> Path:
    """The smallest settings, one worker, MLflow's artifacts in the store too."""
    values, folder = yaml.safe_load(tiny_profile.read_text()), tmp_path_factory.mktemp("store")
    values["tracking"] = {"uri": f"sqlite:///{folder}/mlflow.db", "artifact_location": f"{bucket}/mlflow"}
    values["train"] |= {"num_workers": 1}
    path = folder / "store.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def stored(request, bucket, profile, tmp_path) -> StageRun:
    """A run whose root is a scratch folder; each test has a part of the bucket for itself."""
    store, requests = f"{bucket}/{request.function.__name__}", f"{bucket}/inbox/requests.jsonl"
    train = getattr(request, "param", {})
    return StageRun(profile, tmp_path / "root", store=store, requests=requests, train=train)


def new_machine(run: StageRun) -> None:
    """What the last stage left on its node is gone."""
    shutil.rmtree(PROJECT / run.config.root, ignore_errors=True)


def objects(run: StageRun, pattern: str) -> list[str]:
    place = run.config.store.removeprefix("s3://")
    return fsspec.filesystem("s3", use_listings_cache=False).glob(f"{place}/{pattern}")


def put_request(run: StageRun) -> None:
    """Puts a photo of a drawn person, and the wish for two pictures, into the inbox."""
    store = fsspec.filesystem("s3", use_listings_cache=False)
    photo = sorted(objects(run, "cache/portraits/*/images/*.png"))[0]
    store.pipe_file("photoverse/inbox/one.png", store.cat_file(photo))
    request = {
        "id": "one", "photo": "one.png", "prompt": "a photo of S*", "num_images": 2, "seed": 1,
        "consent": CONSENT,
    }  # fmt: skip
    store.pipe_file("photoverse/inbox/requests.jsonl", json.dumps(request).encode() + b"\n")


def test_the_chain_runs_with_nothing_but_the_store(stored: StageRun):
    for name in STAGES[:-1]:
        new_machine(stored)
        record = stored.stage(name)
        assert record.count_out > 0, name
    assert record.version == "1"
    put_request(stored)
    for done in (False, True):
        new_machine(stored)
        batch = stored.stage("personalize")
        assert (batch.done, batch.failed, batch.skipped) == (1, 0, int(done))
    assert [row.status for row in Ledger(Path(batch.folder)).rows()] == ["done", "skipped"]
    assert len(objects(stored, "run/personalize/pictures/*.png")) == 2
    new_machine(stored)
    with pytest.raises(ValueError, match="run 'run' exists"):
        open_run(stored.config)
    kept = [path.rsplit("/", 1)[1] for path in objects(stored, "run/records/*.json")]
    assert sorted(kept) == sorted(f"{name}.json" for name in STAGES)


LONGER = {"steps": 40, "checkpoint_every": 4}


@pytest.mark.parametrize("stored", [LONGER], indirect=True)
def test_a_training_that_was_cancelled_goes_on_elsewhere_and_ends_as_with_a_folder(
    stored: StageRun, profile, tmp_path
):
    here = StageRun(profile, tmp_path / "folder", train=LONGER)
    expected = {name: here.stage(name) for name in STAGES[:3]}
    for name in STAGES[:2]:
        new_machine(stored)
        assert stored.stage(name).fingerprint == expected[name].fingerprint
    shards = [{shard.sha256 for shard in run.stage("prepare").shards} for run in (stored, here)]
    assert shards[0] == shards[1]

    def cancel() -> None:
        """Interrupts this process, as Ctrl-C does, when the second checkpoint is in the store."""
        while len(objects(stored, "run/train/*/checkpoints/run/checkpoint_*/files.json")) < 2:
            time.sleep(0.2)
        _thread.interrupt_main()

    new_machine(stored)
    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        stored.stage("train")
    new_machine(stored)
    trained = stored.stage("train")
    assert any("resuming run at step" in line for line in stored.lines), "it began anew"
    assert trained.fingerprint == expected["train"].fingerprint
    store_of(stored.config).fetch(Path(trained.folder), leave=NOT_SENT)
    assert stored.losses() == here.losses()
    assert sha256_file(Path(trained.adapter)) == sha256_file(Path(expected["train"].adapter))
