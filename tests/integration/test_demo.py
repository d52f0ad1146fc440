"""`photoverse demo` with the smallest settings, twice: the whole chain, and a second run that keeps it."""

import json
import os
import subprocess
import sys

import pytest

from flows.environment import PROJECT

STAGES = ["portraits", "prepare", "train", "evaluate", "promote", "personalize"]


def demo(profile, root, blocked):
    words = ["-m", "flows.cli", "demo", "--profile", str(profile), "--name", "demo", "--root", str(root)]
    environment = os.environ | blocked | {"PREFECT_HOME": str(root / "prefect")}
    done = subprocess.run(
        [sys.executable, *words], cwd=PROJECT, env=environment,
        capture_output=True, text=True, timeout=2300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done, json.loads((root / "demo" / "summary.json").read_text())


@pytest.mark.timeout(4800)
def test_the_demo_runs_the_whole_chain_and_a_second_run_keeps_it(tiny_profile, tmp_path, blocked_names):
    done, summary = demo(tiny_profile, tmp_path, blocked_names)
    assert list(summary["stages"]) == STAGES
    stages = summary["stages"]
    assert all(stage["seconds"] > 0 and stage["out"] > 0 for stage in stages.values())
    assert stages["portraits"]["out"] == stages["prepare"]["in"] == 6 * 2 + 2 * 2 + 4 * 2
    assert isinstance(summary["train"]["reference_gain"], float)
    assert {"generated", "floor", "ceiling", "retrieval_top1"} <= set(summary["evaluate"]["identity"])
    assert summary["promote"]["decision"] in ("promoted", "registered", "refused")
    batch = summary["personalize"]
    assert (batch["requests"], batch["failed"]) == (4, 0)
    assert batch["done"] == 4
    for path in summary["paths"].values():
        assert (PROJECT / path).exists(), path
    assert "Done in" in done.stdout
    assert all(stage in done.stderr for stage in STAGES)

    again, second = demo(tiny_profile, tmp_path, blocked_names)
    assert again.stderr.count("kept (done before)") == 5
    assert {name: second["stages"][name] for name in STAGES[:5]} == {
        name: stages[name] for name in STAGES[:5]
    }
    assert second["personalize"]["skipped"] == 4
