"""Records of a good candidate, made to be spoilt one value at a time; a registry that is made once."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from components.core import (
    Checkpoint,
    EvaluationReport,
    IdentityFigures,
    RuntimeConfig,
    ShardManifest,
    StrictConfig,
    TrackingConfig,
    sha256_file,
)
from components.registry import RegistryConfig, Store, promote, stage

FIGURES = {
    "generated": 0.5,
    "generated_interval": (0.45, 0.55),
    "floor": 0.05,
    "base_alone": 0.06,
    "ceiling": 0.9,
    "retrieval_top1": 0.6,
    "by_group": {"north": 0.52, "south": 0.48},
    "by_gender": {"f": 0.5, "m": 0.5},
    "no_face_rate": 0.01,
}


@pytest.fixture
def figures():
    return lambda **changed: IdentityFigures.parse(FIGURES | changed, source="test")


@pytest.fixture
def report(tmp_path, figures):
    def make(seed=0, people=40, colour=None, **changed):
        path = tmp_path / f"report-{seed}.json"
        config = {
            "split": "heldout",
            "prompt": "a photo of S*",
            "seed": seed,
            "batch_size": 3,
            "dials": {"candidates": 8},
        }
        pictures = [{"reference": f"r{i}"} for i in (2, 1, 1)]
        path.write_text(
            json.dumps({"config": config, "pictures": pictures, "judge_marks": {"identity": "00"}})
        )
        return EvaluationReport(
            count_in=40,
            count_out=200,
            people=people,
            report_json=str(path),
            report_html=str(tmp_path / "report.html"),
            identity=figures(**changed),
            colour=colour,
        )

    return make


@pytest.fixture
def checkpoint(tmp_path):
    def make(name="run", weights=b"weights", interval=(0.02, 0.08), **changed):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        adapter = folder / "adapter.safetensors"
        adapter.write_bytes(weights)
        card = {"fits": {"unet": "11"}, "sha256": sha256_file(adapter)}
        adapter.with_suffix(".json").write_text(json.dumps(card))
        values = {
            "run_name": name,
            "folder": str(folder),
            "adapter": str(adapter),
            "step": 150,
            "losses": {"diffusion": 0.4},
            "reference_gain": 0.05,
            "reference_gain_interval": interval,
        }
        return Checkpoint.parse(values | changed, source="test")

    return make


@pytest.fixture
def manifest(tmp_path):
    return ShardManifest(
        folder=str(tmp_path),
        shards=(),
        samples={"train": 600, "heldout": 80},
        rejects=3,
        rejects_file="rejects.parquet",
        feature_shape=(5, 2, 8),
        latent_shape=(8, 16, 16),
        licences={"CC0-1.0": 680},
    )


@pytest.fixture(scope="session")
def tracking(tmp_path_factory) -> TrackingConfig:
    folder = tmp_path_factory.mktemp("mlflow")
    return TrackingConfig(
        uri=f"sqlite:///{folder / 'below' / 'mlflow.db'}",
        experiment="test",
        artifact_location=str(folder / "artifacts"),
    )


class Settings(StrictConfig):
    """Stands for the model and the face config: the registry only stores their values."""

    base: str = "nowhere/base"


def light_publish(folder, store, package, checkpoint, tags):
    """Makes a version of the package without logging a pyfunc."""
    place = Path(tempfile.mkdtemp(dir=folder))
    shutil.copytree(package, place / "artifacts" / "package")
    if not store.versions():
        store.client.create_registered_model(store.name)
    return str(store.client.create_model_version(store.name, str(place), tags=tags).version)


@pytest.fixture
def run(tracking, manifest, request, tmp_path, monkeypatch):
    """Runs the stage under a model name of the test's own."""
    name = request.node.name.split("[")[0]

    monkeypatch.setattr(stage, "publish", lambda *a: light_publish(tmp_path, *a))

    def run(report, checkpoint, **changed):
        values = {"model_name": name} | changed.pop("registry", {})
        settings = {"model": Settings(), "face": Settings(base="face")} | changed
        return promote(
            config=RegistryConfig.parse(values, source="test"),
            runtime=RuntimeConfig(),
            tracking=tracking,
            report=report,
            checkpoint=checkpoint,
            manifest=manifest,
            folder=tmp_path / "promote",
            **settings,
        )

    run.store = Store(tracking, name)
    return run
