"""Settings of inference: the dials of a picture, and how a file of requests is worked off."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core import StrictConfig

Weight = Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)]
# Piecewise constant: (share of the steps, factor on the dial from there on), e.g. ((0, 0), (0.2, 1)).
Share = Annotated[float, Field(ge=0, le=1)]
Schedule = tuple[tuple[Share, Weight], ...]
Words = Annotated[int, Field(ge=1)]


class Dials(StrictConfig):
    """What a user turns. PhotoVerse Sec. 4.2: m, gamma, sigma and alpha are free at inference.

    Attributes:
        gamma: Weight of the text branch.
        sigma: Weight of the visual branch: up for more identity, down for more style.
        alpha: Weight of the LoRA part.
        m: How many pseudo-words S* stands for; None takes all of the card. The paper evaluates with 1.
        m_schedule: m over the steps, in place of `m`: ((0, 1), (0.5, 5)) turns from 1 word to 5 halfway.
        m_levels: m for each resolution level, finest first, in place of `m`.
        gamma_schedule: Factor on gamma over the steps; empty is always 1.
        sigma_schedule: Factor on sigma over the steps, e.g. ((0, 0), (0.2, 1)): the identity joins after 20%.
        alpha_schedule: Factor on alpha over the steps.
        alpha_levels: Factor on alpha for each resolution level, finest first; empty is always 1.
        gamma_levels: Factor on gamma for each resolution level, finest first; empty is always 1.
        sigma_levels: Factor on sigma for each resolution level.
        guidance_scale: Classifier-free guidance; 1 turns it off. Silent in the paper; 7.5 is diffusers' own.
        num_inference_steps: Denoising steps. Silent in the paper; 30 is where DDIM stops changing much.
        strength: For image-to-image: share of the steps that are taken from the noised picture on; None
            starts from pure noise.
        candidates: Pictures that are drawn for each that is returned: the one whose face is most like the
            person's is kept (best of n, as arXiv 2501.09732). Each costs a whole picture. Where nobody or
            several are meant, or a card holds no identity to compare with, one is drawn.
    """

    gamma: Weight = 1.0
    sigma: Weight = 1.0
    alpha: Weight = 1.0
    m: Words | None = None
    gamma_schedule: Schedule = ()
    sigma_schedule: Schedule = ()
    alpha_schedule: Schedule = ()
    m_schedule: tuple[tuple[Share, Words], ...] = ()
    gamma_levels: tuple[Weight, ...] = ()
    sigma_levels: tuple[Weight, ...] = ()
    alpha_levels: tuple[Weight, ...] = ()
    m_levels: tuple[Words, ...] = ()
    guidance_scale: float = Field(default=7.5, ge=1, le=50, allow_inf_nan=False)
    num_inference_steps: int = Field(default=30, ge=1, le=1000)
    strength: float | None = Field(default=None, gt=0, le=1)
    candidates: int = Field(default=1, ge=1, le=32)

    @field_validator("gamma_schedule", "sigma_schedule", "alpha_schedule", "m_schedule")
    @classmethod
    def _starts_at_zero(cls, schedule: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        shares = [share for share, _ in schedule]
        if shares and (shares[0] != 0 or shares != sorted(set(shares))):
            raise ValueError("must start at share 0 and rise, e.g. ((0, 0), (0.2, 1))")
        return schedule

    @model_validator(mode="after")
    def _one_m(self) -> Self:
        given = [name for name in ("m", "m_schedule", "m_levels") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} say different things of m: give one of them")
        return self


class PhotoRules(StrictConfig):
    """What a photo must be, and how the identity crop is cut: keep it as it was in preparation.

    Attributes:
        identity_expand: Factor on the face box for x_m (PhotoVerse Sec. 3: 1.3).
        target_expand: Factor on the face box for the picture that image-to-image starts from (Sec. 3: 3).
        min_face_px: A face whose box is narrower than this is refused.
        several_faces: Of a photo with several faces of at least that width, "largest" takes the largest,
            "reject" refuses the photo, so that nobody is ever drawn who was not meant.
        max_pixels: A photo with more pixels is refused before it is unpacked (decompression bombs).
        max_file_mb: A larger file is refused unread.
    """

    identity_expand: float = Field(default=1.3, ge=1, le=4)
    target_expand: float = Field(default=3.0, ge=1, le=10)
    min_face_px: int = Field(default=24, ge=4)
    several_faces: Literal["largest", "reject"] = "largest"
    max_pixels: int = Field(default=64_000_000, ge=10_000, le=1_000_000_000)
    max_file_mb: int = Field(default=64, ge=1)


class ProvenanceConfig(StrictConfig):
    """How pictures tell what they are, and which are never shown.

    Attributes:
        watermark_key: Of the invisible mark; None leaves it out. With a key of your own nobody else can find
            or remove the mark; everybody knows the default, and anybody can look for it.
        sign: Whether files carry content credentials (C2PA).
        credentials: Folder of the signing key, made at first use. None: the flows keep it in `credentials`
            below the folder of all runs; elsewhere each process makes one that ends with it.
        safety_checker: Whether the base's safety checker, where it has one, blocks pictures.
    """

    watermark_key: str | None = Field(default="photoverse", min_length=1)
    sign: bool = True
    credentials: str | None = None
    safety_checker: bool = True

    @property
    def key_folder(self) -> Path | None:
        """The folder of the signing key, None where each process has its own."""
        return None if self.credentials is None else Path(self.credentials)

    def below(self, root: Path) -> Self:
        """Returns these settings with a key that is kept, by default in `credentials` below the root."""
        return self.model_copy(update={"credentials": str(root / (self.credentials or "credentials"))})


class BatchConfig(StrictConfig):
    """How a batch of requests is worked off.

    Attributes:
        dials: What a request's own dials are laid over.
        negative_prompt: For requests that have none.
        photo_rules: See `PhotoRules`.
        photos_root: Folder or URL below which the requests' photos lie; None takes that of the requests.
        photo_urls: Prefixes of URLs that a request's photos may have, e.g. ("s3://bucket/photos",); none by
            default: a request must not make this machine read whatever it can reach.
        thumbnail_px: Longest side of the thumbnails that the summary shows; 0 makes none.
        batch_size: Pictures that are denoised together.
        workers: Actors, each with a model of its own; None takes one a GPU, or one for each two CPUs.
        max_prompt_characters: A longer prompt is an error of its request.
        max_images: The most pictures one request may ask for.
        provenance: See `ProvenanceConfig`.
    """

    dials: Dials = Dials()
    negative_prompt: str = ""
    photo_rules: PhotoRules = PhotoRules()
    photos_root: str | None = None
    photo_urls: tuple[str, ...] = ()
    thumbnail_px: int = Field(default=96, ge=0, le=512)
    batch_size: int = Field(default=8, ge=1, le=256)
    workers: int | None = Field(default=None, ge=1)
    max_prompt_characters: int = Field(default=1000, ge=1)
    max_images: int = Field(default=64, ge=1)
    provenance: ProvenanceConfig = ProvenanceConfig()
