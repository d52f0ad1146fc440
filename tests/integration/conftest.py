"""The whole chain with the smallest settings, for tests that run real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.core import RuntimeConfig, TrackingConfig
from components.face import FaceConfig
from components.model import ModelConfig
from components.training import TrainConfig, train
from tests.factories import tiny_base
from tests.integration.made_training import SETTINGS
from tests.unit.training.made_shards import made_shards

BLOCKED = """
import os, socket

_log, _real = os.environ["BLOCKED_NAMES_LOG"], socket.getaddrinfo
_here = {None, "", "localhost", "::1", socket.gethostname(), socket.getfqdn("127.0.0.1")}

def getaddrinfo(host, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if name in _here or (isinstance(name, str) and name.replace(".", "").isdigit()):
        return _real(host, *args, **kwargs)
    with open(_log, "a") as log:
        log.write(f"{name}\\n")
    raise socket.gaierror(socket.EAI_NONAME, f"name resolution is blocked: {name}")

socket.getaddrinfo = getaddrinfo
"""


# Ray's usage module, off as it is, asks the metadata service of a cloud machine which cloud that is. The name
# leads to the machine's own host and nowhere else; Ray has no switch for it.
OF_THE_MACHINE = {"metadata.google.internal"}


def tiny_settings(root: Path, base: Path) -> dict:
    """Returns a profile whose stages take seconds: an untrained base, a dozen people, two steps."""
    return {
        "root": str(root),
        "portraits": {
            "train_people": 6, "train_views": 2, "validation_people": 2, "validation_views": 2,
            "heldout_people": 4, "heldout_views": 2, "size": 128,
        },
        "prepare": {"target_expand": 2.0, "samples_per_shard": 8, "contact_sheet_samples": 6},
        "face": {"identity_onnx": str(base / "face_pack" / "identity.onnx")},
        "model": {"base": str(base)},
        "train": {
            "steps": 2, "global_batch_size": 4, "num_workers": 2, "checkpoint_every": 1, "log_every": 1,
            "validation": {"timesteps": 2, "sample_people": 2, "sample_steps": 2, "bootstrap": 100},
        },
        "evaluation": {
            "pictures_per_reference": 1, "bootstrap_samples": 100, "dials": {"num_inference_steps": 2},
        },
        "registry": {"thresholds": {"minimum_people": 2, "reference_gain_low": -1}},
        "batch": {"photo_rules": {"target_expand": 2.0}, "dials": {"num_inference_steps": 2}},
        "runtime": {"device": "cpu", "num_cpus": 2},
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny_profile(tmp_path_factory) -> Path:
    """A profile file with the smallest settings; people and shards are shared by all tests of the session."""
    folder = tmp_path_factory.mktemp("tiny")
    base = tiny_base(folder / "base")
    profile = folder / "tiny.yaml"
    profile.write_text(yaml.safe_dump(tiny_settings(folder / "runs", base)), encoding="utf-8")
    return profile


@pytest.fixture
def blocked_names(tmp_path) -> Iterator[dict[str, str]]:
    """Environment in which no process resolves a name beyond this machine; the test fails if one tried."""
    folder, log = tmp_path / "site", tmp_path / "blocked.log"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKED, encoding="utf-8")
    yield {"PYTHONPATH": str(folder), "BLOCKED_NAMES_LOG": str(log)}
    tried = sorted(set(log.read_text().split()) - OF_THE_MACHINE) if log.exists() else []
    assert tried == [], f"these names were asked for: {tried}"


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    base = tiny_base(folder / "base")
    return {
        "model": ModelConfig(base=str(base)),
        "face": FaceConfig(),
        "runtime": RuntimeConfig(device="cpu", num_cpus=2),
        "tracking": TrackingConfig(
            uri=f"sqlite:///{folder}/mlflow.db", artifact_location=str(folder / "artifacts")
        ),
        "manifest": made_shards(folder / "shards", base),
    }


@pytest.fixture(scope="session")
def undisturbed(parts, ray_local, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return train(
        config=TrainConfig.parse(SETTINGS, source="a test"), **parts, folder=folder, run_name="undisturbed"
    )
