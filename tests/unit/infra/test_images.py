"""The images: linted by hadolint, locked, without root, without a compiler where they run."""

import re

import pytest

from flows.environment import PROJECT

FOLDER = PROJECT / "infra" / "docker"
dockerfile = FOLDER / "Dockerfile"


def stages() -> dict[str, str]:
    """Returns name -> text of every stage."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", dockerfile.read_text(), flags=re.M)
    return dict(zip(parts[2::3], parts[3::3], strict=True))


def test_hadolint_finds_nothing(run_tool):
    run_tool("hadolint", "--config", str(FOLDER / "hadolint.yaml"), str(dockerfile))


def test_hadolint_would_find_something(run_tool, tmp_path):
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN pip install numpy\n")
    with pytest.raises(AssertionError, match="DL3007"):
        run_tool("hadolint", "--config", str(FOLDER / "hadolint.yaml"), str(bad))


def test_both_images_are_made_from_the_lock_and_run_without_root():
    found = stages()
    assert {"cpu", "cuda"} <= set(found)
    for kind in ("cpu", "cuda"):
        install = found[f"build-{kind}"]
        assert "--constraint infra/constraints.txt" in install
        assert f"COPY --from=build-{kind} /opt /opt" in found[kind]
    assert "USER 1000:1000" in found["runtime"]
    assert "USER" not in found["cpu"] + found["cuda"]  # nobody turns back to root


def test_the_compiler_stays_in_the_build_and_its_op_is_made_there():
    found = stages()
    assert "g++" in found["build-base"]
    assert "g++" not in found["system"] + found["runtime"] + found["cpu"] + found["cuda"]
    assert "ShareMemCommBuilder as B; B().load()" in found["build-cpu"]
    assert "TORCH_EXTENSIONS_DIR=/opt/torch_extensions" in found["system"]


def test_data_secrets_and_history_stay_out():
    ignored = set((FOLDER / "Dockerfile.dockerignore").read_text().split())
    assert {".git", ".venv", "runs", "data", "**/.env"} <= ignored
