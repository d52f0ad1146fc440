"""The frozen records that stages hand to each other, as JSON files beside what they describe.

A record says what a stage made, from how many inputs, in how long, and by which fingerprint, so that a later
run can tell that the work is already done. Records hold paths and figures, never data.
"""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from components.core.config import StrictConfig
from components.core.storage import write_text_atomic


class Record(StrictConfig):
    """What every stage reports.

    Attributes:
        fingerprint: Identity of config, inputs and code version that this result follows from.
        seconds: Wall time of the stage, in seconds.
        count_in: Inputs read (photos, samples, steps, pictures, requests: the stage's own unit).
        count_out: Results made, in the stage's own unit.
    """

    stage: ClassVar[str]
    schema_version: Literal[1] = 1
    fingerprint: str = ""
    seconds: float = Field(default=0.0, ge=0)
    count_in: int = Field(default=0, ge=0)
    count_out: int = Field(default=0, ge=0)

    def save(self, path: Path) -> Path:
        """Writes the record as JSON, atomically."""
        write_text_atomic(
            path, json.dumps({"stage": self.stage} | self.model_dump(mode="json"), indent=2) + "\n"
        )
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a record of this kind.

        Raises:
            ValueError: There is no such file, or it is the record of another stage or schema.
        """
        if not path.is_file():
            raise ValueError(f"no {cls.stage} record at {path}: run `photoverse stage {cls.stage}` first")
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = values.pop("stage", None)
        if found != cls.stage:
            raise ValueError(f"{path} is the record of stage {found!r}, expected {cls.stage!r}")
        return cls.parse(values, source=str(path))


class PhotoFolder(Record):
    """Drawn people: `images/*.png` and `metadata.csv` below `folder`."""

    stage: ClassVar[str] = "portraits"
    folder: str
    people: dict[str, int] = Field(description="number of people by split")


class ShardFile(StrictConfig):
    """One tar of the shard set; `name` is relative to the manifest's folder.

    Attributes:
        samples: How many the tar holds.
        sha256: Of the tar.
        gaps: Places, in the tar as it was first written, of samples that were forgotten since: readers pass
            over them, so that all others keep their place in every order.
        made_sha256: Of the tar as it was first written; empty if it is still that one.
    """

    name: str
    split: Literal["train", "validation", "heldout"]
    samples: int = Field(ge=0)
    sha256: str
    gaps: tuple[int, ...] = ()
    made_sha256: str = ""

    @property
    def places(self) -> int:
        """Samples of the tar as it was first written."""
        return self.samples + len(self.gaps)

    @property
    def origin_sha256(self) -> str:
        """Identity of the tar as it was first written: what was forgotten since makes it no other set."""
        return self.made_sha256 or self.sha256


class ShardManifest(Record):
    """WebDataset shards made by `prepare`; count_in = photos read, count_out = samples written."""

    stage: ClassVar[str] = "prepare"
    folder: str
    shards: tuple[ShardFile, ...]
    samples: dict[str, int] = Field(description="number of samples by split")
    rejects: int = Field(ge=0)
    rejects_file: str
    rejects_by_reason: dict[str, int] = {}
    feature_shape: tuple[int, int, int] = Field(description="(m layers, T tokens a layer, D width)")
    latent_shape: tuple[int, int, int] = Field(description="(C, h, w)")
    licences: dict[str, int] = Field(default={}, description="number of samples by licence of the source")
    contact_sheet: str | None = None


class Checkpoint(Record):
    """A trained adapter; count_in = samples seen, count_out = optimizer steps."""

    stage: ClassVar[str] = "train"
    run_name: str
    folder: str
    adapter: str = Field(description="path of the adapter's safetensors file")
    step: int = Field(ge=0)
    losses: dict[str, float] = {}
    reference_gain: float = Field(description="relative, held-out people; see training.validation")
    reference_gain_interval: tuple[float, float] = Field(description="95% interval over people")
    mlflow_run_id: str | None = None


class IdentityFigures(StrictConfig):
    """Cosine similarities on one axis, means over held-out people, with 95% intervals over people."""

    generated: float
    generated_interval: tuple[float, float]
    floor: float = Field(description="different people")
    base_alone: float = Field(description='the base model with "a photo of a person"')
    ceiling: float | None = Field(description="another photo of the same person; None: nobody has one")
    through_vae: float | None = Field(default=None, description="the reference itself through the VAE")
    retrieval_top1: float = Field(ge=0, le=1)
    by_group: dict[str, float] = {}
    by_gender: dict[str, float] = {}
    no_face_rate: float = Field(default=0.0, ge=0, le=1)


class CopyingFigures(StrictConfig):
    """How near pictures come to the very photo, and how much they vary; None: could not be measured."""

    generated: float = Field(description="correlation of pixels with the reference photo; 1 is a copy")
    other_photo: float | None = Field(description="the same of other real photos of the person")
    diversity: float | None = Field(description="1 - mean correlation between the pictures of a reference")
    base_diversity: float | None = Field(description="the same between pictures of the base model alone")
    very_photo: float | None = Field(default=None, description="identity judge: with the photo given")
    other_photos: float | None = Field(default=None, description="identity judge: with the person's others")
    pose_change: float | None = Field(default=None, description="from the photo, in distances of the eyes")
    pose_change_real: float | None = Field(default=None, description="of other real photos")
    expression_change: float | None = None
    expression_change_real: float | None = None


class ObedienceFigures(StrictConfig):
    """Share of checkable wishes in prompts that pictures met, mean over people."""

    obeyed: float = Field(ge=0, le=1)
    interval: tuple[float, float]
    base: float | None = Field(default=None, description="the base model alone, asked the same")
    clip_t: float | None = None


class EvaluationReport(Record):
    """count_in = references, count_out = pictures generated and scored."""

    stage: ClassVar[str] = "evaluate"
    report_json: str
    report_html: str
    people: int = Field(ge=0)
    identity: IdentityFigures
    second: IdentityFigures | None = Field(default=None, description="the same by the second recogniser")
    colour: IdentityFigures | None = Field(default=None, description="the same by the colour-histogram judge")
    copying: CopyingFigures | None = None
    obedience: ObedienceFigures | None = None


class Ablation(Record):
    """count_in = variants asked for, count_out = variants in the table."""

    stage: ClassVar[str] = "ablate"
    folder: str
    report_json: str
    report_html: str
    verdicts: dict[str, str] = Field(default={}, description="what the table says of each variant")
    missing: tuple[str, ...] = Field(default=(), description="variants that failed")


class Promotion(Record):
    """What the gate decided and what the registry did."""

    stage: ClassVar[str] = "promote"
    decision: Literal["promoted", "registered", "refused"]
    reasons: tuple[str, ...]
    model_name: str
    version: str | None = None
    model_uri: str | None = None


class Personalization(Record):
    """count_in = requests, count_out = requests whose pictures exist."""

    stage: ClassVar[str] = "personalize"
    folder: str
    ledger: str
    requests: int = Field(ge=0)
    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    blocked: int = Field(default=0, ge=0, description="of the failed ones: by the base's safety checker")
    skipped: int = Field(default=0, ge=0, description="already done by an earlier run, content unchanged")
    model_uri: str
