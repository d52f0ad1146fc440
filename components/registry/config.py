"""Settings of the registry: the model's name, the gate's thresholds, the limits of the served model."""

from pydantic import Field

from components.core import StrictConfig


class GateThresholds(StrictConfig):
    """What a candidate must reach to become champion; similarities are cosines of the identity judge.

    Attributes:
        reference_gain_low: The lower end of the 95% interval of the held-out `reference_gain` must be above
            this.
        above_floor: The lower end of the interval of generated similarity must exceed the floor (different
            people) by more than this.
        above_base: It must exceed the similarity of the base model alone by more than this.
        worst_group: Each group's similarity must exceed the floor by more than this.
        largest_gap: The best group may be at most this far above the worst one.
        no_face_rate: At most this share of the pictures may show no face.
        retrieval_over_chance: Top-1 retrieval must be at least this many times chance (1 / people).
        colour_above_floor: Generated colour similarity must exceed its floor by more than this, where that
            judge sat.
        champion_tolerance: Generated similarity may be at most this far below the champion's.
        worst_group_tolerance: The worst group may be at most this far below the champion's worst group.
        minimum_people: People that the evaluation must have looked at.
        obedience: At least this share of the checkable wishes in prompts must be met, where it was measured.
        obedience_of_base: At least this share of what the base model alone meets, where it was measured.
        copying: Pictures may correlate with the very photo by at most this (1 is a copy).
        copy_margin: By the identity judge, pictures may be this much nearer to the very photo than to other
            photos of the person; above that they copy the photo and not the person.
        diversity: The pictures of one reference must differ by at least this (1 minus their correlation).
        blocked_licences: Licences of training photos or of weights that forbid registration. A word that ends
            in `*` blocks all that begin so.
        licences_stated: Whether photos and weights without a stated licence forbid promotion.
    """

    reference_gain_low: float = Field(default=0.0, ge=-1, le=1, allow_inf_nan=False)
    above_floor: float = Field(default=0.02, ge=-1, le=1, allow_inf_nan=False)
    above_base: float = Field(default=0.02, ge=-1, le=1, allow_inf_nan=False)
    worst_group: float = Field(default=0.0, ge=-1, le=1, allow_inf_nan=False)
    largest_gap: float = Field(default=0.25, ge=0, le=2, allow_inf_nan=False)
    no_face_rate: float = Field(default=0.1, ge=0, le=1, allow_inf_nan=False)
    retrieval_over_chance: float = Field(default=1.5, ge=0, allow_inf_nan=False)
    colour_above_floor: float = Field(default=0.0, ge=-1, le=1, allow_inf_nan=False)
    champion_tolerance: float = Field(default=0.02, ge=0, le=1, allow_inf_nan=False)
    worst_group_tolerance: float = Field(default=0.05, ge=0, le=1, allow_inf_nan=False)
    minimum_people: int = Field(default=8, ge=2)
    obedience: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    obedience_of_base: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False)
    copying: float = Field(default=0.95, ge=-1, le=1, allow_inf_nan=False)
    copy_margin: float = Field(default=0.15, ge=0, le=2, allow_inf_nan=False)
    diversity: float = Field(default=0.02, ge=0, le=1, allow_inf_nan=False)
    blocked_licences: tuple[str, ...] = ()
    licences_stated: bool = False


class ServingLimits(StrictConfig):
    """What one request to the served model may ask for.

    Attributes:
        photo_bytes: Largest decoded photo file.
        photo_pixels: Most pixels of a photo; more is a decompression bomb.
        prompt_characters: Longest prompt.
        pictures: Most pictures of a request.
        requests: Most requests of a call.
        steps: Most denoising steps.
        candidates: Most pictures drawn for each that is returned.
    """

    photo_bytes: int = Field(default=10_000_000, ge=1)
    photo_pixels: int = Field(default=40_000_000, ge=1)
    prompt_characters: int = Field(default=1000, ge=1)
    pictures: int = Field(default=8, ge=1)
    requests: int = Field(default=16, ge=1)
    steps: int = Field(default=100, ge=1)
    candidates: int = Field(default=32, ge=1, le=32)


class RegistryConfig(StrictConfig):
    """Where and when a model is promoted.

    Attributes:
        model_name: Name of the registered model.
        alias: Alias of the model in use.
        challenger_alias: Alias of the newest version that the gate did not let through.
        thresholds: See `GateThresholds`.
        limits: See `ServingLimits`.
        weight_licences: Licence by part of the weights that the model stands on: base, face nets. What a base
            folder's MODEL_CARD.md says under "Licence:" is added to it.
        base_inside_mb: A base folder up to this size is stored with the model; a larger one by its name and
            hash.
    """

    model_name: str = Field(default="photoverse", pattern=r"^[A-Za-z0-9_.-]+$")
    alias: str = Field(default="champion", pattern=r"^[A-Za-z0-9_-]+$")
    challenger_alias: str = Field(default="challenger", pattern=r"^[A-Za-z0-9_-]+$")
    thresholds: GateThresholds = GateThresholds()
    limits: ServingLimits = ServingLimits()
    weight_licences: dict[str, str] = {}
    base_inside_mb: int = Field(default=100, ge=0)
