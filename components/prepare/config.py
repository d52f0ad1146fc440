"""Settings of preparation: crops, limits, policies, sizes of the shards."""

from typing import Literal

from pydantic import Field, model_validator

from components.core import StrictConfig


class PrepareConfig(StrictConfig):
    """From photos to samples.

    Attributes:
        identity_expand: Factor on the face box for the identity crop x_m (PhotoVerse Sec. 3: 1.3).
        target_expand: Factor on the face box for the denoising target x_t (PhotoVerse Sec. 3: 3).
        resolution: Side of x_t in pixels; None takes the base model's own.
        identity_size: Side of x_m in pixels; None takes the image encoder's own.
        several_faces: What to do with a photo of several faces: keep the largest, keep all, or reject the
            photo.
        min_face_px: Faces whose box is narrower than this do not count. Pixels of the original photo.
        max_pixels: Photos with more pixels are rejected before they are unpacked (decompression bombs).
        max_file_mb: Files larger than this are rejected unread.
        max_reject_share: A larger share of rejected photos is an error of the run.
        encode_latents: Whether VAE latents are stored; without them the trainer encodes `target.png` itself.
        identity_from_folder: Where no identity is given, take the name of the photo's folder for one; else
            each photo is a person of its own.
        validation_share: Share of people that watch training, where the source states no split.
        heldout_share: Share of people that only evaluation sees, where the source states no split.
        split_salt: Changes who falls into which split.
        source: Name of the source, kept with each sample.
        licence: Licence of photos for which the source states none.
        consent: Consent of people for whom the source states none.
        samples_per_shard: Photos that go into one tar.
        batch_size: Photos that go through the networks together.
        face_workers: Processes that decode, detect and crop; None takes half the CPUs.
        encode_workers: Processes that run CLIP and the VAE; None takes every GPU, else half the CPUs.
        contact_sheet_samples: Samples shown on `contact_sheet.png`; 0 makes none.
    """

    identity_expand: float = Field(default=1.3, ge=1, le=4)
    target_expand: float = Field(default=3.0, ge=1, le=10)
    resolution: int | None = Field(default=None, ge=16, le=2048)
    identity_size: int | None = Field(default=None, ge=16, le=1024)
    several_faces: Literal["largest", "all", "reject"] = "largest"
    min_face_px: int = Field(default=24, ge=4)
    max_pixels: int = Field(default=64_000_000, ge=10_000, le=1_000_000_000)
    max_file_mb: int = Field(default=256, ge=1)
    max_reject_share: float = Field(default=0.5, ge=0, le=1)
    encode_latents: bool = True
    identity_from_folder: bool = False
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    heldout_share: float = Field(default=0.05, ge=0, lt=1)
    split_salt: str = "photoverse"
    source: str = "folder"
    licence: str = "not stated"
    consent: str = "not stated"
    samples_per_shard: int = Field(default=256, ge=1, le=100_000)
    batch_size: int = Field(default=16, ge=1, le=1024)
    face_workers: int | None = Field(default=None, ge=1)
    encode_workers: int | None = Field(default=None, ge=1)
    contact_sheet_samples: int = Field(default=24, ge=0, le=400)

    @model_validator(mode="after")
    def _somebody_trains(self) -> "PrepareConfig":
        if self.validation_share + self.heldout_share >= 1:
            raise ValueError(
                "validation_share + heldout_share must be below 1: nobody would be left to train on"
            )
        return self
