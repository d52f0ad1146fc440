"""The `photoverse` command: words in, settings out, errors that help."""

import argparse
import subprocess
import sys

import pytest
import yaml

from flows import doctor
from flows.cli import FAILED, REFUSED, main
from flows.commands.options import parse_settings, root_of
from flows.environment import PROJECT


def test_settings_from_words():
    words = ["train.steps=300", "train.optimizer.learning_rate=1e-3", "photos=/data/x", "train.use_gpu=null"]
    assert parse_settings(words) == {
        "train": {"steps": 300, "optimizer": {"learning_rate": "1e-3"}, "use_gpu": None},
        "photos": "/data/x",
    }
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        parse_settings(["train.steps"])


def test_help_names_every_command_and_is_quick():
    script = (
        "import sys; from flows.cli import main\ntry: main(['--help'])\nfinally: print('HEAVY', [m for m in "
    )
    script += "('torch', 'ray', 'prefect', 'mlflow', 'diffusers') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert "HEAVY []" in done.stdout
    assert all(
        word in done.stdout
        for word in (
            *("demo", "stage", "train", "plan", "ablate", "promote", "rollback", "history"),
            *("personalize", "export", "services", "doctor"),
        )
    )


def test_a_wrong_stage_is_refused_in_one_line(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("name: x\n")
    code = main(["stage", "polish", "--config", str(config), "--out", str(tmp_path / "polish.json")])
    assert code == REFUSED
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: stage 'polish' is not known; allowed:")


def test_a_wrong_config_is_refused_with_its_key(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("train: {stesp: 3}\n")
    code = main(["stage", "train", "--config", str(config), "--out", str(tmp_path / "train.json")])
    assert code == REFUSED
    error = capsys.readouterr().err
    assert "train.stesp: Extra inputs are not permitted; found 3" in error
    assert "Traceback" not in error


def test_a_fault_of_a_library_is_shown_whole(monkeypatch, tmp_path, capsys):
    def broken(path):
        int("three")  # raised here, in a test: not our code's refusal

    monkeypatch.setattr("flows.config.load_config", broken)
    assert main(["stage", "train", "--config", "c", "--out", str(tmp_path / "r.json")]) == FAILED
    assert "Traceback" in capsys.readouterr().err


def test_the_doctor_finds_what_is_missing_and_says_the_mend(monkeypatch, tmp_path):
    profile = tmp_path / "p.yaml"
    profile.write_text(f"model: {{base: {tmp_path}/nothing}}\n")
    monkeypatch.setenv("CXX", "no-such-compiler")
    findings = {finding.subject: finding for finding in doctor.examine(str(profile))}
    assert findings["Python"].mend == ""
    assert "g++" in findings["C++ compiler"].mend
    assert "put the model's folder at" in findings["base model"].mend
    text = doctor.say(list(findings.values()))
    assert "mend: apt-get install g++" in text
    assert text.splitlines()[-1].endswith("to mend")


@pytest.mark.parametrize("complaint", ["Python 3.11 is missing", "a C++ compiler is missing"])
def test_the_check_before_installation_says_what_is_missing(complaint, tmp_path):
    """In a plain shell without a PATH to speak of, as on a fresh machine."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "awk", "df"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    done = subprocess.run(
        ["/bin/sh", "infra/check_machine.sh"], cwd=PROJECT, env={"PATH": str(tools)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert any(complaint in line and "install" in line for line in lines)


def test_the_check_names_a_system_library_that_opencv_needs(tmp_path):
    script = (PROJECT / "infra" / "check_machine.sh").read_text()
    (tmp_path / "check.sh").write_text(script.replace("libGL.so.1", "libNone.so.1"))
    done = subprocess.run(
        ["/bin/sh", "check.sh"], cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PHOTOVERSE_NEED_GB": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "missing (libNone.so.1): install them" in done.stderr


def test_the_check_names_a_full_disk(tmp_path):
    script = (PROJECT / "infra" / "check_machine.sh").read_text()
    (tmp_path / "check.sh").write_text(script)
    done = subprocess.run(
        ["/bin/sh", "check.sh"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PHOTOVERSE_NEED_GB": "999999"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "999999 GB are needed: make room" in done.stderr


def test_plan_says_hours_and_money(capsys):
    assert main(["plan", "--profile", "sd21", "--gpus", "8", "--price", "2.0"]) == 0
    said = capsys.readouterr().out
    assert "60,000 steps of 64 samples" in said
    assert "ASSUMED by the profile, not measured" in said
    assert "hours" in said
    assert "in all" in said
    assert main(["plan", "--profile", "sd21", "--gpus", "8", "--samples-per-second", "10"]) == 0
    assert "8 GPUs: 76.0 samples a second\n  10 of one GPU, as given" in capsys.readouterr().out


def test_plan_measures_by_the_log_of_a_run(tmp_path, capsys):
    folder = tmp_path / "short"
    (folder / "train" / "abc").mkdir(parents=True)
    (folder / "config.yaml").write_text("name: short\ntrain: {num_workers: 2}\n")
    rows = [
        f'{{"step": {step}, "samples_per_second": {rate}}}\n' for step, rate in ((1, 2), (2, 20), (3, 20))
    ]
    (folder / "train" / "abc" / "metrics.jsonl").write_text("".join(rows))
    words = ["plan", "--profile", "sd21", "--gpus", "1", "--root", str(tmp_path), "--from-run"]
    assert main([*words, "short"]) == 0
    assert (
        "1 GPU: 10.0 samples a second\n  10.00 of one worker, measured by run short"
        in capsys.readouterr().out
    )
    assert main([*words, "other"]) == REFUSED
    assert "has no training log" in capsys.readouterr().err


def test_plan_without_a_throughput_asks_for_one(capsys):
    assert main(["plan", "--profile", "portraits"]) == REFUSED
    assert "give --samples-per-second, or --from-run" in capsys.readouterr().err


def test_runs_lie_where_the_profile_says_unless_a_root_is_named(tmp_path):
    profile = tmp_path / "team.yaml"
    profile.write_text(yaml.safe_dump({"root": str(tmp_path / "team-runs")}))
    asked = argparse.Namespace(profile=str(profile), root=None)
    assert root_of(asked) == str(tmp_path / "team-runs")
    assert root_of(argparse.Namespace(profile=str(profile), root="mine")) == "mine"
    assert root_of(argparse.Namespace(profile="portraits", root=None)) == "runs"
