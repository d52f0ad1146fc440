"""Stages as Ray jobs on two nodes with addresses of their own: same results, a lost node, a cancelled run."""

import shutil
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.integration.stage_runs import StageRun
from tests.integration.two_nodes import Cluster, bridge, cluster, possible

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not possible(), reason="needs root and network namespaces"),
]
TRAIN = {"steps": 12, "checkpoint_every": 4, "cpus_per_worker": 2, "max_failures": 3}


@pytest.fixture(scope="module")
def nodes():
    with bridge(), cluster() as found:
        yield found


@pytest.fixture(scope="module")
def profile(tiny_profile, tmp_path_factory) -> Path:
    """The smallest settings, one worker a node, in a folder that both nodes see."""
    folder = tmp_path_factory.mktemp("cluster")
    values = yaml.safe_load(tiny_profile.read_text())
    values["train"] |= TRAIN
    values["runtime"]["num_cpus"] = 4  # what both nodes have together, here too
    values["tracking"] = {"uri": f"sqlite:///{folder}/mlflow.db", "artifact_location": f"{folder}/artifacts"}
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run_of(profile: Path, name: str, url: str | None = None, **train) -> StageRun:
    """Returns a run of this machine, or of the cluster at the URL."""
    there = {"runner": {"kind": "ray-job", "ray_address": url}} if url else {}
    return StageRun(profile, profile.parent / ("cluster" if url else "local"), name, train=train, **there)


def until(true, timeout_s: float, what: str) -> float:
    start = time.monotonic()
    while time.monotonic() - start < timeout_s:
        if true():
            return time.monotonic() - start
        time.sleep(0.5)
    raise AssertionError(f"waited {timeout_s} s in vain: {what}")


@pytest.fixture(scope="module")
def local(profile):
    run = run_of(profile, "run")
    return run, {name: run.stage(name) for name in ("portraits", "prepare", "train")}


def test_a_cluster_gives_the_same_records_and_survives_a_lost_node(nodes: Cluster, profile, local):
    """Prepared on the cluster; trained with one worker on each node, one of them killed in mid-training."""
    here, expected = local
    there = run_of(profile, "run", nodes.url)
    for name in ("portraits", "prepare"):
        found = there.stage(name)
        assert found.fingerprint == expected[name].fingerprint, name
        if name == "prepare":
            assert [shard.sha256 for shard in found.shards] == [s.sha256 for s in expected[name].shards]
    workers = []

    def lose_the_node() -> None:
        until(lambda: any(row.get("step", 0) >= 5 for row in there.rows()), 900, "training did not start")
        workers.append(sum("RayTrainWorker" in line for line in nodes.worker.commands()))
        nodes.worker.kill()
        nodes.start_worker()  # as an autoscaler does

    thread = threading.Thread(target=lose_the_node, daemon=True)
    thread.start()
    trained = there.stage("train")
    thread.join(5)
    assert workers == [1], "one worker on each node was expected"
    assert trained.step == expected["train"].step == TRAIN["steps"]
    assert trained.fingerprint == expected["train"].fingerprint
    assert there.losses().keys() == here.losses().keys()
    assert there.losses() == pytest.approx(here.losses(), rel=1e-5)
    assert there.lines, "no line of a job arrived"


def test_a_cancelled_run_leaves_nothing_after_30_s(nodes: Cluster, profile):
    from ray.job_submission import JobSubmissionClient
    from ray.util.state import list_placement_groups

    nodes.wait_for(2)
    run = run_of(profile, "cancelled", nodes.url, steps=100_000, checkpoint_every=100_000)
    done = profile.parent / "cluster" / "run" / "records"
    for name in ("portraits", "prepare"):
        target = run.folder / "records" / f"{name}.json"
        if (done / target.name).is_file():  # the same data: nothing to prepare again
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(done / target.name, target)
        else:
            run.stage(name)
    cancelled = []

    def on_line(line: str) -> None:
        if any("loss" in row for row in run.rows()):
            cancelled.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.stage("train", on_line)

    def left() -> list[str]:
        ours = ("flows.cli stage", "RayTrainWorker", "TrainController")
        commands = [line for node in (nodes.head, nodes.worker) for line in node.commands()]
        found = [line[:80] for line in commands if any(word in line for word in ours)]
        found += [str(job.submission_id) for job in JobSubmissionClient(nodes.url).list_jobs()
                  if not job.status.is_terminal()]  # fmt: skip
        groups = list_placement_groups(address=nodes.url)
        return found + [str(group.placement_group_id) for group in groups if group.state != "REMOVED"]

    until(lambda: not left(), 60, f"still there: {left()}")
    assert time.monotonic() - cancelled[0] <= 30
