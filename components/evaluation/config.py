"""Settings of the evaluation: whom to draw, how often, with which dials, and how the judges look."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from components.core import StrictConfig
from components.inference import Dials

SweptDial = Literal["sigma", "gamma", "alpha", "m", "guidance_scale", "candidates", "strength"]


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
        m_values: Numbers of pseudo-words that are measured beside that of `dials`, on the same prompt (the
            paper: 1 and 5).
        branch_alone: Weight of a branch that stands alone: the same prompt is drawn with the text branch
            alone (gamma at this weight, sigma 0) and with the visual branch alone. Training knows them at 2
            (PhotoVerse Eq. 4). None draws neither.
        m_pictures: Pictures of a reference for each of these; None draws `pictures_per_reference`.
        prompt_sets: Sets of prompts for obedience, by name (see `prompt_sets/`) or as paths of YAML files.
        prompt_people: People drawn for each prompt, taken evenly over groups and genders.
        base_obedience: Draw the same prompts with the base model alone too: what obedience can be had.
        sweeps: Values by dial for the curve of identity against obedience; a dial is sigma, gamma, alpha, m,
            guidance_scale or strength (which starts from the reference photo). Every point has the prompts of
            `prompt_sets`.
        sweep_people: People of the curve, the first of those of `prompt_people`.
        sweep_prompts: Prompts of the curve, the first of the sets.
        clip: CLIP of CLIP-T: folder or hub id, or "base" for the base's own two towers; None measures none.
        inception_onnx: Inception of FID and KID as ONNX; None takes the image encoder's features.
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
    m_values: tuple[Annotated[int, Field(ge=1)], ...] = ()
    branch_alone: float | None = Field(default=None, gt=0)
    m_pictures: int | None = Field(default=None, ge=1)
    prompt_sets: tuple[str, ...] = ()
    prompt_people: int = Field(default=6, ge=2)
    base_obedience: bool = True
    sweeps: dict[SweptDial, tuple[float, ...]] = {}
    sweep_people: int = Field(default=6, ge=2)
    sweep_prompts: int = Field(default=4, ge=1)
    clip: str | None = None
    inception_onnx: str | None = None

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

    @model_validator(mode="after")
    def _curve_has_prompts(self) -> Self:
        if self.sweeps and not self.prompt_sets:
            raise ValueError("sweeps need prompt_sets: the curve shows identity against obedience")
        for dial, values in self.sweeps.items():
            for value in values:
                swept(self.dials, dial, value)
        return self


def swept(dials: Dials, dial: str, value: float) -> Dials:
    """Returns the dials with one of them turned.

    Raises:
        ValueError: The dial cannot take the value.
    """
    whole = dial in ("m", "candidates")
    turned = dials.model_dump() | {dial: int(value) if whole else value}
    return Dials.parse(turned, source=f"evaluation.sweeps.{dial}")


VariantName = Literal[
    "full",
    "no-visual-branch",
    "no-visual-regularizer",
    "no-face-loss",
    "no-text-regularizer",
    "no-text-branch",
    "batch-fusion",
    "no-lora",
]


class AblationConfig(StrictConfig):
    """What photoverse/ablate trains and measures.

    Attributes:
        variants: Lines of the table (see `ablation.VARIANTS`); "full" is always among them.
        settings: Laid over the run's own for all variants alike, nested as in a profile: fewer steps, fewer
            pictures.
        confidence: Coverage that the intervals of differences aim at.
        bootstrap_samples: Resamples of people behind them.
    """

    variants: tuple[VariantName, ...] = get_args(VariantName)
    settings: dict[str, Any] = {}
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    bootstrap_samples: int = Field(default=2000, ge=100, le=100_000)

    @field_validator("variants")
    @classmethod
    def _with_the_full_method(cls, variants: tuple[str, ...]) -> tuple[str, ...]:
        if "full" not in variants:
            raise ValueError("must hold 'full', the line that the others are compared with")
        return tuple(dict.fromkeys(variants))
