"""Settings of the base model's training: people to draw, and the budget of each part."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from components.core import StrictConfig
from components.portraits.config import BaseArchitecture

Part = Literal["identity", "vae", "clip", "vision", "text", "attributes", "unet", "judge"]
PARTS: tuple[Part, ...] = ("identity", "vae", "clip", "vision", "text", "attributes", "unet", "judge")
"""In the order of training; each may use those before it."""


class Budget(StrictConfig):
    """How long and how fast one part learns.

    Attributes:
        minutes: Time spent in steps; the learning rate follows it, so a slower machine takes fewer steps.
        steps: When given, counts instead of `minutes`: the same result on every machine with the same
            arithmetic.
        batch: Pictures a step.
        learning_rate: Peak, after `warmup` steps; falls as a cosine to 2% of it.
        weight_decay: Of matrices and kernels.
        warmup: Steps of linear rise.
        bfloat16: Forward passes in bfloat16 where the processor has units for it.
        average: Decay of the moving average of weights that is written out; 0 writes the weights themselves.
    """

    minutes: float = Field(default=10.0, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=32, ge=2, le=4096)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup: int = Field(default=50, ge=0)
    average: float = Field(default=0.0, ge=0, lt=1)
    bfloat16: bool = False


class PretrainConfig(StrictConfig):
    """Everything `make base-model` needs to know.

    Attributes:
        parts: Which parts to train, always in the order of `PARTS`.
        train_people: People drawn for training, seeds from 1,000,000.
        train_views: Pictures of each.
        heldout_people: People drawn for the figures of the model card, seeds from 2,000,000.
        heldout_views: Pictures of each; the first is the reference of retrieval.
        picture_size: Side at which people are drawn, in pixels; the base's own size is cut from it.
        go_on: The UNet begins with the weights that the base folder has, not with random ones; for a base
            whose checkpoints are gone.
        threads: Threads of torch and processes of drawing.
        save_every: Steps between checkpoints.
        sample_steps: Denoising steps of the pictures that are looked at and measured.
    """

    architecture: BaseArchitecture = BaseArchitecture()
    parts: tuple[Part, ...] = PARTS
    train_people: int = Field(default=4_000, ge=4, le=500_000)
    train_views: int = Field(default=6, ge=2, le=100)
    heldout_people: int = Field(default=200, ge=4, le=100_000)
    heldout_views: int = Field(default=3, ge=2, le=100)
    picture_size: int = Field(default=128, ge=64, le=512)
    seed: int = Field(default=0, ge=0)
    go_on: bool = False
    threads: int = Field(default=1, ge=1, le=256)
    save_every: int = Field(default=100, ge=1)
    sample_steps: int = Field(default=20, ge=1, le=1000)
    identity: Budget = Budget(minutes=20, batch=64, learning_rate=3e-3, weight_decay=5e-2, bfloat16=True)
    vae: Budget = Budget(minutes=20, batch=8, learning_rate=2e-3, weight_decay=0.0, average=0.995)
    clip: Budget = Budget(minutes=12, batch=96, learning_rate=1e-3, weight_decay=5e-2)
    vision: Budget = Budget(minutes=30, batch=64, learning_rate=1e-3, weight_decay=2e-2, bfloat16=True)
    text: Budget = Budget(minutes=6, batch=128, learning_rate=1e-3, weight_decay=2e-2, bfloat16=True)
    unet: Budget = Budget(minutes=80, batch=32, learning_rate=2e-3, average=0.998, bfloat16=True)
    attributes: Budget = Budget(minutes=3, batch=64, learning_rate=3e-3)
    judge: Budget = Budget(minutes=15, batch=64, learning_rate=3e-3, weight_decay=5e-2, bfloat16=True)

    @field_validator("parts", mode="after")
    @classmethod
    def _in_order(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        return tuple(part for part in PARTS if part in parts)

    @model_validator(mode="after")
    def _cut_from_drawn(self) -> "PretrainConfig":
        if self.architecture.picture_size > self.picture_size:
            raise ValueError(
                f"picture_size {self.picture_size} is below the base's {self.architecture.picture_size}"
            )
        return self

    def budget(self, part: Part) -> Budget:
        """The budget of one part."""
        return getattr(self, part)

    def scaled(self, scale: float) -> "PretrainConfig":
        """The same with `scale` times the minutes, steps and people; for tests and first looks."""
        changes: dict[str, object] = {
            "train_people": max(4, round(self.train_people * scale)),
            "heldout_people": max(4, round(self.heldout_people * scale)),
        }
        for part in PARTS:
            budget = self.budget(part)
            steps = max(1, round(budget.steps * scale)) if budget.steps else None
            changes[part] = budget.model_copy(update={"minutes": budget.minutes * scale, "steps": steps})
        return self.model_copy(update=changes)
