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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
STAGES = ("portraits", "prepare", "train", "evaluate", "promote", "personalize")
BUCKET = "s3://photoverse"


@pytest.fixture(scope="module")
def bucket():
    """An S3 server on loopback with our bucket; its keys and address are in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = dict.fromkeys(("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"), f"http://{host}:{port}")
    values |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "of-the-test")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (values | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("photoverse")
        yield BUCKET
    server.stop()


@pytest.fixture(scope="module")
def profile(tiny_profile, tmp_path_factory) -> Path:
    values = yaml.safe_load(tiny_profile.read_text())
    values["train"] |= {"steps": 40, "checkpoint_every": 4}
    values["registry"]["thresholds"] |= {"reference_gain_low": -1, "minimum_people": 2}
    path = tmp_path_factory.mktemp("store") / "store.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def expected(profile, tmp_path_factory):
    """The same run with a folder that all stages share."""
    run = StageRun(profile, tmp_path_factory.mktemp("folder"))
    return run, {name: run.stage(name) for name in ("portraits", "prepare", "train")}


@pytest.fixture(scope="module")
def stored(bucket, profile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    tracking = {"uri": f"sqlite:///{folder}/mlflow.db", "artifact_location": f"{bucket}/mlflow"}
    requests = f"{bucket}/inbox/requests.jsonl"
    return StageRun(profile, folder / "root", store=f"{bucket}/runs", tracking=tracking, requests=requests)


def new_machine(run: StageRun) -> None:
    """What the last stage left on its node is gone."""
    shutil.rmtree(PROJECT / run.config.root, ignore_errors=True)


def objects(pattern: str) -> list[str]:
    return fsspec.filesystem("s3", use_listings_cache=False).glob(f"photoverse/{pattern}")


def cancel_in_mid_training() -> None:
    """Interrupts this process, as Ctrl-C does, when the second checkpoint is in the store."""
    while len(objects("runs/run/train/*/checkpoints/run/checkpoint_*/files.json")) < 2:
        time.sleep(0.2)
    _thread.interrupt_main()


def put_request(run: StageRun, bucket: str) -> None:
    """Puts a photo of a drawn person, and the wish for two pictures, into the inbox."""
    store = fsspec.filesystem("s3", use_listings_cache=False)
    photo = next(iter(sorted(objects("runs/cache/portraits/*/images/*.png"))))
    store.pipe_file("photoverse/inbox/one.png", store.cat_file(photo))
    request = {
        "id": "one", "photo": "one.png", "prompt": "a photo of S*", "num_images": 2, "seed": 1,
        "consent": CONSENT,
    }  # fmt: skip
    store.pipe_file("photoverse/inbox/requests.jsonl", json.dumps(request).encode() + b"\n")


def test_the_chain_runs_with_nothing_but_the_store(bucket, stored: StageRun, expected):
    here, records = expected
    for name in STAGES[:2]:
        new_machine(stored)
        assert stored.stage(name).fingerprint == records[name].fingerprint
        assert not (stored.folder / "train").exists()
    shards = stored.stage("prepare").shards  # done before: nothing is brought but records
    assert [shard.sha256 for shard in shards] == [shard.sha256 for shard in records["prepare"].shards]

    new_machine(stored)

    threading.Thread(target=cancel_in_mid_training, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        stored.stage("train")
    new_machine(stored)
    trained = stored.stage("train")
    assert any("resuming run at step" in line for line in stored.lines), "it began anew"
    assert trained.fingerprint == records["train"].fingerprint
    store_of(stored.config).fetch(Path(trained.folder), leave=NOT_SENT)
    assert stored.losses() == here.losses()
    assert sha256_file(Path(trained.adapter)) == sha256_file(Path(records["train"].adapter))

    new_machine(stored)
    assert stored.stage("evaluate").people == 4
    new_machine(stored)
    assert stored.stage("promote").version == "1"
    put_request(stored, bucket)
    new_machine(stored)
    batch = stored.stage("personalize")
    assert (batch.done, batch.failed) == (1, 0)
    new_machine(stored)
    again = stored.stage("personalize")
    assert (again.done, again.skipped) == (1, 1)
    assert [row.status for row in Ledger(Path(again.folder)).rows()] == ["done", "skipped"]
    assert len(objects("runs/run/personalize/pictures/*.png")) == 2


def test_what_a_run_is_said_to_be_is_in_the_store(stored: StageRun):
    new_machine(stored)
    with pytest.raises(ValueError, match="run 'run' exists"):
        open_run(stored.config)
    kept = [path.rsplit("/", 1)[1] for path in objects("runs/run/records/*.json")]
    assert sorted(kept) == sorted(f"{name}.json" for name in STAGES)
