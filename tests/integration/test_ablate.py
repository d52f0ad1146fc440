"""The ablation as a user runs it: real stages, killed in the middle, gone on with, one table."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows.environment import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture
def command(tiny_profile, tmp_path):
    """Starts `photoverse ablate` with two variants in a session of its own; returns process and log."""
    words = ["ablate", "--profile", str(tiny_profile), "--name", "abl", "--variants", "no-visual-branch"]
    words += ["--set", "train.num_workers=1", "--set", "train.validation.sample_people=0"]
    started: list[subprocess.Popen] = []

    def start(*more: str) -> tuple[subprocess.Popen, Path]:
        log = tmp_path / f"log-{len(started)}.txt"
        environment = os.environ | {
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",
            "PYTHONPATH": str(PROJECT),
        }
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *words, *more],
                cwd=PROJECT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process, log

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_an_ablation_that_is_killed_goes_on_and_trains_no_finished_variant_again(command, tiny_profile):
    root = Path(yaml.safe_load(tiny_profile.read_text())["root"])
    first, log = command()
    finished = root / "abl.full" / "records" / "evaluate.json"
    deadline = time.monotonic() + 1400
    while not finished.is_file():
        assert first.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = made_by(root / "abl.full")
    assert before
    assert not (root / "abl" / "ablation" / "ablation.json").exists()

    refused, log = command()
    assert refused.wait(600) == 2
    assert "exists" in log.read_text()

    second, log = command("--resume")
    assert second.wait(1400) == 0, log.read_text()[-3000:]
    assert made_by(root / "abl.full") == before
    table = json.loads((root / "abl" / "ablation" / "ablation.json").read_text())
    assert [line["variant"] for line in table["lines"]] == ["full", "no-visual-branch"]
    assert table["lines"][1]["difference"]["people"] == 4
    assert "no visual branch" in log.read_text()
    record = json.loads((root / "abl" / "records" / "ablate.json").read_text())
    assert (record["count_in"], record["count_out"]) == (2, 2)
    assert (root / "abl" / "ablation" / "ablation.html").stat().st_size > 10_000


def made_by(run: Path) -> dict[str, int]:
    """Returns the files that training and drawing made, with their times of change."""
    kinds = ("train/*/adapter.safetensors", "evaluate/pictures-*/*/*.png")
    return {str(path): path.stat().st_mtime_ns for kind in kinds for path in run.glob(kind)}
