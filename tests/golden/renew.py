"""Renews the recorded losses of a short seeded run: `python -m tests.golden.renew`."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from components.training.tracking import read_history
from tests.factories import tiny_base
from tests.unit.training.made_runs import made_job, run_alone
from tests.unit.training.made_shards import made_shards

RECORD = Path(__file__).parent / "training_losses.json"
STEPS, SEED = 50, 7
COLUMNS = (
    "loss",
    "diffusion",
    "face",
    "text_regularizer",
    "visual_regularizer",
    "gradient_norm",
    "learning_rate",
)
SETTINGS: dict[str, Any] = {
    "steps": STEPS,
    "checkpoint_every": STEPS,
    "optimizer": {"learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 5},
    "fusion": {"warmup_steps": 20},
    "losses": {"timestep_sampling": "stratified", "min_snr_gamma": 5.0},
    "face_loss": {"fraction": 0.25, "max_timestep": 0.5, "every_n_steps": 2},
    "condition_dropout": 0.1,
    "validation": {"timesteps": 2, "sample_people": 0},
}


def golden_run(folder: Path) -> dict[str, list[float]]:
    """Runs the settings on the tiny base; returns each column of the log."""
    base = tiny_base(folder / "base")
    manifest = made_shards(folder / "shards", base)
    job = made_job(folder / "run", base, manifest, seed=SEED, **SETTINGS)
    run_alone(job)
    rows = [row for row in read_history(job.folder) if "loss" in row]
    return {name: [row[name] for row in rows] for name in COLUMNS}


def main() -> None:
    """Writes the record."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        losses = golden_run(Path(folder))
    record = {
        "renewed_by": "python -m tests.golden.renew",
        "seed": SEED,
        "device": "cpu",
        "dtype": "float32",
        "relative_tolerance": 2e-3,  # other processors add up in another order; it grows over 50 steps
        "settings": SETTINGS,
        "losses": losses,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {RECORD}")


if __name__ == "__main__":
    main()
