"""What the repository promises about itself: targets, checks before a commit, pins."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHECK = ROOT / "infra" / "check_files.py"


def test_make_alone_lists_the_targets():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = set(re.findall(r"make ([a-z-]+) ", done.stdout))
    promised = {"demo", "test", "lint", "format", "types", "bench", "base-model", "services", "clean"}
    assert promised <= named


def check(*words):
    done = subprocess.run([sys.executable, str(CHECK), *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_large_file_is_not_committed(tmp_path):
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(9 * 2**20))
    assert check("--large", str(large)) == (1, f"{large}: 9.0 MB, at most 8 MB are allowed\n")
    small = tmp_path / "small.bin"
    small.write_bytes(b"1")
    assert check("--large", str(small)) == (0, "")


@pytest.mark.parametrize(
    "secret", ["-----BEGIN RSA PRIVATE" + " KEY-----", "AKIA" + "A" * 16, "hf_" + "a" * 34]
)
def test_a_secret_is_not_committed(tmp_path, secret):
    file = tmp_path / "notes.txt"
    file.write_text(f"x = {secret!r}\n")
    code, said = check("--secrets", str(file))
    assert code == 1
    assert "seems to hold" in said
    file.write_text("the private key is elsewhere\n")
    assert check("--secrets", str(file)) == (0, "")


def test_pre_commit_fetches_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]


def test_pins_that_pip_does_not_know_are_held():
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "infra" / "constraints.txt").read_text().split()
        if "==" in line
    )
    assert tuple(map(int, pins["fastapi"].split("."))) < (0, 151)
    assert pins["sqlalchemy"].startswith("2.0.")
    assert pins["torch"].split("+")[0] == "2.13.0"
    assert not {"onnx2torch", "onnx2pytorch", "torchvision"} & set(pins)


def test_ci_calls_the_same_targets():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make lint" in script
    assert "make test" in script
