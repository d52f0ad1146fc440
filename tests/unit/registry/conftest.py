"""Records of a good candidate, made to be spoilt one value at a time; a registry that is made once."""

import json

import pytest

from components.core import (
    Checkpoint,
    EvaluationReport,
    IdentityFigures,
    ShardManifest,
    TrackingConfig,
    sha256_file,
)

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
        config = {"split": "heldout", "prompt": "a photo of S*", "seed": seed, "batch_size": 3}
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
