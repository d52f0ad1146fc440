"""A champion on a tiny base, and requests to it: what the tests of serving share."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from components.core import (
    Checkpoint,
    EvaluationReport,
    IdentityFigures,
    Promotion,
    RuntimeConfig,
    ShardManifest,
    TrackingConfig,
)
from components.face import FaceConfig
from components.model import ModelConfig, PhotoVerseAdapter, load_base, save_adapter
from components.registry import GateThresholds, RegistryConfig, promote
from components.registry.store import Store
from tests.factories import tiny_base

IDENTITY = Path(__file__).parents[1] / "components/portraits/base/face_pack/identity.onnx"
DIALS = {"num_inference_steps": 2, "guidance_scale": 2.0}


def register_champion(
    folder: Path, model: ModelConfig | None = None, tracking: TrackingConfig | None = None
) -> tuple[TrackingConfig, Promotion]:
    """Registers an untrained adapter that a lenient gate lets through; in the folder by default."""
    import torch

    model = model or ModelConfig(base=str(tiny_base(folder / "base")), feature_layers=(1, 3))
    torch.manual_seed(0)
    base = load_base(model)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, model)
    save_adapter(adapter, folder / "adapter.safetensors")
    (folder / "report.json").write_text(json.dumps({"config": {"dials": DIALS}, "pictures": []}))
    figures = IdentityFigures(
        generated=0.5,
        generated_interval=(0.4, 0.6),
        floor=0.0,
        base_alone=0.0,
        ceiling=0.9,
        retrieval_top1=1,
    )
    here = (folder / "artifacts").as_uri() if tracking is None else None
    tracking = tracking or TrackingConfig(
        uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_location=str(folder / "artifacts")
    )
    client = Store(tracking, "photoverse").client
    run_id = client.create_run(client.create_experiment("test", here)).info.run_id
    promotion = promote(
        config=RegistryConfig(thresholds=GateThresholds(minimum_people=2)),
        model=model,
        face=FaceConfig(identity_onnx=str(IDENTITY)),
        runtime=RuntimeConfig(),
        tracking=tracking,
        report=EvaluationReport(
            count_out=2,
            people=2,
            report_json=str(folder / "report.json"),
            report_html=str(folder / "report.html"),
            identity=figures,
        ),
        checkpoint=Checkpoint(
            run_name="tiny",
            folder=str(folder),
            adapter=str(folder / "adapter.safetensors"),
            step=0,
            reference_gain=0.1,
            reference_gain_interval=(0.05, 0.15),
            mlflow_run_id=run_id,
        ),
        manifest=ShardManifest(
            folder=str(folder),
            shards=(),
            samples={"train": 2},
            rejects=0,
            rejects_file="rejects.parquet",
            feature_shape=(2, 2, 32),
            latent_shape=(8, 16, 16),
        ),
    )
    return tracking, promotion


CONSENT = {"person": "drawn-800000", "purpose": "a test", "given": "2026-01-01"}


def request_of(photo_uint8: np.ndarray, **changed) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(photo_uint8).save(buffer, format="PNG")
    photo = base64.b64encode(buffer.getvalue()).decode()
    return {"photo": photo, "consent": CONSENT, "prompt": "a photo of S*", "seed": 3} | changed


def pixels(picture: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).astype(int)
