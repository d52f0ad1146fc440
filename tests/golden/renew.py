"""Renews recorded losses: `python -m tests.golden.renew [tiny] [portraits]`; without a word, both.

`tiny` is the tiny base of the tests with most switches on: a change of numerics is seen in seconds.
`portraits` is the portraits profile as it stands, on the base that comes with it: profile and base are part
of its record, so a new base or another value in the profile asks for a new one.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from components.core import load_yaml, sha256_file
from components.training import read_history
from tests.factories import tiny_base
from tests.unit.training.made_runs import made_job, run_alone
from tests.unit.training.made_shards import made_shards

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
PORTRAITS_BASE = PROJECT / "components/portraits/base"
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
SHORT: dict[str, Any] = {"checkpoint_every": STEPS, "log_every": 1}
TINY: dict[str, Any] = {
    "steps": STEPS,
    "checkpoint_every": STEPS,
    "optimizer": {"learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 5},
    "fusion": {"warmup_steps": 20},
    "losses": {"timestep_sampling": "stratified", "min_snr_gamma": 5.0},
    "face_loss": {"fraction": 0.25, "max_timestep": 0.5, "every_n_steps": 2},
    "condition_dropout": 0.1,
    "validation": {"timesteps": 2, "sample_people": 0},
}


def record_file(which: str) -> Path:
    """Returns the file of a record."""
    return HERE / f"{which}_losses.json"


def settings_of(which: str) -> dict[str, Any]:
    """Returns the training settings of a run.

    The portraits profile is taken as it is, but for its end: its first fifty steps, with one worker, and no
    measurement after them. Its learning rate falls with the share of the steps done, so its length stays.
    """
    if which == "tiny":
        return TINY
    profile = load_yaml(PROJECT / "infra/profiles/portraits.yaml")["train"]
    return profile | SHORT | {"num_workers": 1, "validation": {"timesteps": 1, "sample_people": 0}}


def base_of(which: str) -> dict[str, str]:
    """Returns the digests of the weights that a record rests on; empty where they are made by the run."""
    if which == "tiny":
        return {}
    files = sorted(PORTRAITS_BASE.glob("*/*.safetensors"))
    return {str(path.relative_to(PORTRAITS_BASE)): sha256_file(path)[:16] for path in files}


class Enough(Exception):
    """Fifty steps are done."""


def golden_run(folder: Path, which: str) -> dict[str, list[float]]:
    """Runs the settings; returns each column of the log for the first fifty steps."""

    def stop(rank: int, inputs: Any) -> None:
        if inputs.step == STEPS:
            raise Enough

    base = tiny_base(folder / "base") if which == "tiny" else PORTRAITS_BASE
    splits = None if which == "tiny" else {"train": 64, "heldout": 4}
    manifest = made_shards(folder / "shards", base, splits=splits)
    settings = settings_of(which)
    job = made_job(folder / "run", base, manifest, seed=SEED, hook=stop, **settings)
    try:
        run_alone(job)
    except Enough:
        pass
    rows = [row for row in read_history(job.folder) if "loss" in row]
    return {name: [row[name] for row in rows] for name in COLUMNS}


def renew(which: str) -> None:
    """Writes a record."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        losses = golden_run(Path(folder), which)
    record = {
        "renewed_by": f"python -m tests.golden.renew {which}",
        "seed": SEED,
        "device": "cpu",
        "dtype": "float32",
        "relative_tolerance": 2e-3,  # other processors add up in another order; it grows over 50 steps
        "settings": settings_of(which),
        "base": base_of(which),
        "losses": losses,
    }
    path = record_file(which)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


if __name__ == "__main__":
    for word in sys.argv[1:] or ["tiny", "portraits"]:
        renew(word)
