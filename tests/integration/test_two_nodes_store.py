"""Two Ray nodes that share nothing but a store: the chain runs, and one of them is lost in mid-training."""

import threading
from pathlib import Path

import fsspec
import pytest
import yaml

from flows.environment import child_environment
from flows.services import daemon, free_port, wait_for
from tests.integration.stage_runs import StageRun
from tests.integration.test_store import put_request
from tests.integration.test_two_nodes import TRAIN, until
from tests.integration.two_nodes import Cluster, bridge, cluster, possible
from tests.object_store import BUCKET, bucket_in_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not possible(), reason="needs root and network namespaces"),
]


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """The nodes' network, an S3 server and MLflow in it; yields MLflow's address."""
    with bridge() as address, bucket_in_environment(address):
        folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
        words = ["-m", "mlflow", "server", "--host", address, "--port", str(port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"]
        words += ["--artifacts-destination", f"{BUCKET}/mlflow", "--allowed-hosts", f"{address}:{port}"]
        url, log = f"http://{address}:{port}", folder / "mlflow.log"
        with daemon("MLflow", words, child_environment(), log) as process:
            wait_for(f"{url}/health", process, "MLflow", log)
            yield url


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def nodes(services, root):
    with cluster(own=root) as found:
        yield found


@pytest.fixture(scope="module")
def run(services, nodes: Cluster, root, tiny_profile, tmp_path_factory) -> StageRun:
    values = yaml.safe_load(tiny_profile.read_text())
    values["train"] |= TRAIN
    profile = tmp_path_factory.mktemp("profile") / "store.yaml"
    profile.write_text(yaml.safe_dump(values))
    return StageRun(
        profile, root, store=f"{BUCKET}/runs", tracking={"uri": services, "artifact_location": None},
        runner={"kind": "ray-job", "ray_address": nodes.url}, requests=f"{BUCKET}/inbox/requests.jsonl",
    )  # fmt: skip


def checkpoints() -> list[str]:
    store = fsspec.filesystem("s3", use_listings_cache=False)
    return store.glob("photoverse/runs/run/train/*/checkpoints/run/checkpoint_*/files.json")


def test_the_chain_runs_on_nodes_that_share_nothing_else(nodes: Cluster, run: StageRun):
    for name in ("portraits", "prepare"):
        run.stage(name)
    lost = []

    def lose_the_node() -> None:
        until(checkpoints, 600, "no checkpoint came")
        lost.append(sum("RayTrainWorker" in line for line in nodes.worker.commands()))
        nodes.worker.kill()
        nodes.start_worker()

    thread = threading.Thread(target=lose_the_node, daemon=True)
    thread.start()
    trained = run.stage("train")
    thread.join(5)
    assert lost == [1], "one worker on each node was expected"
    assert trained.step == TRAIN["steps"]
    assert run.stage("evaluate").people == 4
    assert run.stage("promote").version == "1"
    put_request(run)
    assert run.stage("personalize").done == 1
    here = sorted(path.name for path in Path(run.config.root).rglob("*.tar"))
    assert here == [], "a shard came to a machine that did not make it"
