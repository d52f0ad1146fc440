"""What the tests of batches share: requests, settings and the rows of a run."""

import json
from pathlib import Path

from components.core import RuntimeConfig
from components.face import FaceConfig
from components.inference import BatchConfig, Dials, personalize_batch
from components.inference.ledger import Ledger, LedgerRow
from components.model import ModelConfig

CONFIG = BatchConfig(dials=Dials(num_inference_steps=2, guidance_scale=2), batch_size=4)
RUNTIME = RuntimeConfig(device="cpu", num_cpus=2)


def write(path: Path, *lines) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def request(i: int = 0, **values) -> dict:
    who = {"person": "anna", "purpose": "a test", "given": "2026-01-01"}
    return {"id": f"r{i}", "photo": "a.png", "prompt": "a photo of S*", "seed": i, "consent": who} | values


def rows(record) -> list[LedgerRow]:
    """The rows of the last run, in the order of the file."""
    found = Ledger(Path(record.folder)).rows()
    return sorted((row for row in found if row.run == found[-1].run), key=lambda row: row.line)


def personalized(folder: Path, file: Path, adapter: Path, model: ModelConfig, config: BatchConfig):
    """Runs the requests of a file into `folder / "out"`; returns the record."""
    return personalize_batch(
        config=config,
        face=FaceConfig(),
        model=model,
        runtime=RUNTIME,
        adapter=adapter,
        model_uri="models:/photoverse/3",
        requests=file,
        folder=folder / "out",
    )
