"""Settings of the portrait world: the drawn people and the sizes of the base model."""

from pydantic import Field, model_validator

from components.core import StrictConfig


class PortraitsConfig(StrictConfig):
    """How many people to draw, split by identity.

    Attributes:
        train_people: People that the adapter may learn from.
        validation_people: People that watch training.
        heldout_people: People that only evaluation sees.
        train_views: Pictures of each training person.
        validation_views: Pictures of each validation person.
        heldout_views: Pictures of each held-out person; two or more give the ceiling of similarity.
        size: Side of a picture, in pixels.
        glasses_swap: Share of the training people's pictures in which glasses are put on or taken off. At 0
            who wears glasses always does, and an adapter learns to take them from the photo, whatever the
            words say.
        first_identity: Seed of the first person; people are numbered from here, so disjoint ranges never
            share one.
    """

    train_people: int = Field(default=200, ge=0, le=500_000)
    validation_people: int = Field(default=20, ge=0, le=100_000)
    heldout_people: int = Field(default=40, ge=0, le=100_000)
    train_views: int = Field(default=3, ge=1, le=1_000)
    validation_views: int = Field(default=2, ge=1, le=1_000)
    heldout_views: int = Field(default=2, ge=1, le=1_000)
    size: int = Field(default=128, ge=64, le=512)
    glasses_swap: float = Field(default=0.0, ge=0, le=1)
    first_identity: int = Field(default=0, ge=0, le=100_000)

    @model_validator(mode="after")
    def _somebody(self) -> "PortraitsConfig":
        if self.train_people + self.validation_people + self.heldout_people == 0:
            raise ValueError("at least one person must be drawn: all of *_people are 0")
        return self


class UnetArchitecture(StrictConfig):
    """Sizes of the `UNet2DConditionModel`.

    Without attention at the finest level a step takes 60% of the time, so that more steps fit.
    """

    block_channels: tuple[int, ...] = (64, 128)
    attention_levels: tuple[bool, ...] = (False, True)
    layers_per_block: int = Field(default=1, ge=1, le=4)
    heads: int = Field(default=4, ge=1, le=16)
    norm_groups: int = Field(default=16, ge=1, le=64)


class VaeArchitecture(StrictConfig):
    """Sizes of the `AutoencoderKL`; its factor is 2 ** (number of blocks - 1).

    Wide enough for a linear encoder to carry a 4 x 4 patch (12 and 48 channels), and with few norm groups: a
    group of two channels forgets how bright the whole picture was.
    """

    block_channels: tuple[int, ...] = (16, 48, 96)
    layers_per_block: int = Field(default=1, ge=1, le=4)
    latent_channels: int = Field(default=16, ge=1, le=64)
    norm_groups: int = Field(default=2, ge=1, le=64)
    mid_block_attention: bool = False


class TextArchitecture(StrictConfig):
    """Sizes of the `CLIPTextModel`."""

    width: int = Field(default=128, ge=8, le=2048)
    layers: int = Field(default=4, ge=1, le=32)
    heads: int = Field(default=4, ge=1, le=32)
    length: int = Field(default=32, ge=8, le=512, description="tokenizer.model_max_length")


class VisionArchitecture(StrictConfig):
    """Sizes of the `CLIPVisionModelWithProjection`; it projects to the text width."""

    width: int = Field(default=128, ge=8, le=2048)
    layers: int = Field(default=6, ge=1, le=48)
    heads: int = Field(default=4, ge=1, le=32)
    patch: int = Field(default=8, ge=2, le=32)


class FaceNetArchitecture(StrictConfig):
    """Sizes of the two ArcFace-style nets on 112 x 112 aligned faces."""

    identity_channels: tuple[int, int, int] = (32, 64, 112)
    judge_channels: tuple[int, int, int, int] = (32, 48, 96, 128)
    embedding: int = Field(default=128, ge=8, le=1024)


class BaseArchitecture(StrictConfig):
    """Every size of a base model; the defaults are those of `components/portraits/base`."""

    picture_size: int = Field(default=64, ge=16, le=512)
    unet: UnetArchitecture = UnetArchitecture()
    vae: VaeArchitecture = VaeArchitecture()
    text: TextArchitecture = TextArchitecture()
    vision: VisionArchitecture = VisionArchitecture()
    face: FaceNetArchitecture = FaceNetArchitecture()
    seed: int = Field(default=0, ge=0)

    @property
    def latent_size(self) -> int:
        """Side of the latents, in cells."""
        return self.picture_size // 2 ** (len(self.vae.block_channels) - 1)
