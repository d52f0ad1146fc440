"""A backup of databases and store, restored on new services: the champion serves the same pictures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.backup import restore
from flows.environment import PROJECT
from tests.factories import tiny_base
from tests.integration.team import Team, team_services
from tests.postgres import PROGRAMS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CHAMPION = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
if len(sys.argv) > 3:
    mlflow.set_experiment("photoverse")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(sys.argv[3], "adapter")
    client.create_registered_model("photoverse")
    source = f"{run.info.artifact_uri}/adapter"
    version = client.create_model_version("photoverse", source, run.info.run_id)
    client.set_registered_model_alias("photoverse", "champion", version.version)
found = client.get_model_version_by_alias("photoverse", "champion")
print(mlflow.artifacts.download_artifacts(found.source, dst_path=sys.argv[2]))
"""


def champion(team: Team, folder: Path, adapter: Path | None = None) -> Path:
    """Registers an adapter as champion, if given, and returns the champion's file, as a client gets it."""
    with team.mlflow() as url:
        words = [url, str(folder), *([str(adapter)] if adapter else [])]
        done = subprocess.run(
            [sys.executable, "-c", CHAMPION, *words], env=team.environment("worker"), text=True,
            capture_output=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(done.stdout.split()[-1]) / "adapter.safetensors"


def photoverse(team: Team, *words: str) -> str:
    """Runs our command as PostgreSQL's administrator, with the keys of the store."""
    environment = team.environment("bucket") | team.postgres.environment
    environment["PATH"] = f"{PROGRAMS}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], cwd=PROJECT, env=environment, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pictures(adapter: Path, base: Path) -> list[np.ndarray]:
    import torch

    from components.core import RuntimeConfig
    from components.inference import Dials, Personalizer
    from components.model import ModelConfig

    maker = Personalizer.load(adapter, ModelConfig(base=str(base)), runtime=RuntimeConfig(device="cpu"))
    features = torch.randn(1, *maker.extractor.shape, generator=torch.Generator().manual_seed(0))
    cards = maker.attachment.cards(features, consent="a test")
    made = maker.generate(cards, ["a photo of S*"], dials=Dials(num_inference_steps=2), seeds=[7])
    return [np.asarray(picture) for picture in made]


def test_a_restored_champion_serves_the_same_pictures(tmp_path, tmp_path_factory):
    from components.model import ModelConfig, PhotoVerseAdapter, load_base, save_adapter

    base = tiny_base(tmp_path / "base")
    config = ModelConfig(base=str(base))
    parts = load_base(config)
    adapter = PhotoVerseAdapter.create(parts.unet, parts.text_encoder, parts.image_encoder, config)
    (tmp_path / "trained").mkdir()
    save_adapter(adapter, tmp_path / "trained" / "adapter.safetensors", {"run_name": "a-test"})
    kept = tmp_path / "backup"
    with team_services(tmp_path_factory.mktemp("before")) as team:
        first = champion(team, tmp_path / "first", tmp_path / "trained")
        said = photoverse(team, "backup", "--out", str(kept), "--store", "s3://photoverse")
        assert "files in" in said
    with team_services(tmp_path_factory.mktemp("after")) as team:  # another PostgreSQL, an empty bucket
        photoverse(team, "restore", "--folder", str(kept), "--store", "s3://photoverse")
        again = champion(team, tmp_path / "again")
    for before, after in zip(pictures(first, base), pictures(again, base), strict=True):
        np.testing.assert_array_equal(before, after)
    dump = kept / "mlflow.dump"
    dump.write_bytes(dump.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="mlflow.dump is missing or not what was backed up"):
        restore(kept, "s3://photoverse")
