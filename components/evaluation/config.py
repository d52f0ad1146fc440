"""Settings of the evaluation: whom to draw, how often, with which dials, and how the judges look."""

from typing import Literal

from pydantic import Field, field_validator

from components.core import StrictConfig
from components.inference import Dials


class EvaluationConfig(StrictConfig):
    """What `evaluate` measures.

    Attributes:
        split: Whose photos are references; other than "heldout" only to look at overfitting.
        prompt: Prompt of the generated pictures; must hold S*.
        base_prompt: Prompt of the base model alone; must not hold S*.
        negative_prompt: Negative prompt of both.
        people: Number of people, taken evenly over groups and genders; None takes all.
        references_per_person: Photos of a person that serve as references; the others only measure the
            ceiling.
        pictures_per_reference: Pictures generated for a reference (the paper: 5).
        base_pictures_per_reference: Pictures of the base model alone for a reference, from the first of the
            same seeds.
        dials: Of every picture. The paper evaluates with m = 1 (Sec. 4); m = None keeps all pseudo-words,
            which is what training sees.
        batch_size: Pictures generated together; does not change them.
        seed: Root of all seeds of pictures and of the bootstrap.
        identity_onnx: Recogniser of the first judge; None takes the face config's, else the base folder's.
        judge_onnx: A second recogniser that training never saw; None takes the base folder's
            `face_pack/judge.onnx` where there is one.
        colour_bins: Bins for each axis of the colour-histogram judge.
        bootstrap_samples: Resamples of an interval.
        confidence: Coverage that intervals aim at.
        gallery_people: People shown in the report's picture grid.
    """

    split: Literal["train", "validation", "heldout"] = "heldout"
    prompt: str = "a photo of S*"
    base_prompt: str = "a photo of a person"
    negative_prompt: str = ""
    people: int | None = Field(default=None, ge=2)
    references_per_person: int = Field(default=1, ge=1)
    pictures_per_reference: int = Field(default=5, ge=1, le=100)
    base_pictures_per_reference: int = Field(default=1, ge=1, le=100)
    dials: Dials = Dials()
    batch_size: int = Field(default=20, ge=1, le=512)
    seed: int = Field(default=0, ge=0, lt=2**63)
    identity_onnx: str | None = None
    judge_onnx: str | None = None
    colour_bins: int = Field(default=8, ge=2, le=32)
    bootstrap_samples: int = Field(default=2000, ge=100, le=100_000)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    gallery_people: int = Field(default=40, ge=1)

    @field_validator("dials")
    @classmethod
    def _from_noise(cls, dials: Dials) -> Dials:
        if dials.strength is not None:
            raise ValueError("must have no strength: evaluated pictures start from noise")
        return dials

    @field_validator("prompt")
    @classmethod
    def _holds_the_person(cls, prompt: str) -> str:
        if "S*" not in prompt:
            raise ValueError("must hold S*, the place of the person")
        return prompt

    @field_validator("base_prompt")
    @classmethod
    def _holds_nobody(cls, prompt: str) -> str:
        if "S*" in prompt:
            raise ValueError("must not hold S*: it is the prompt of the base model alone")
        return prompt
