"""Settings of preparation: sources, crops, limits, policies, sizes of the shards."""

from typing import Any, Literal

from pydantic import Field, model_validator

from components.core import StrictConfig

# The paper's four groups and FairFace's seven races. The paper does not say where it puts people that are
# neither: "Brown" is read as South and West Asian and Latino, "Yellow" as East and Southeast Asian.
FAIRFACE_GROUPS = {
    "Black": "Black",
    "White": "White",
    "East Asian": "Yellow",
    "Southeast Asian": "Yellow",
    "Indian": "Brown",
    "Latino_Hispanic": "Brown",
    "Middle Eastern": "Brown",
}
# Parts that a set publishes for testing are never trained on; all other people are drawn by hash.
OFFICIAL_SPLITS = {"val": "heldout", "validation": "heldout", "test": "heldout"}


class SourceConfig(StrictConfig):
    """One set of photos; see `components.prepare.sources` for the layouts.

    Attributes:
        kind: How the set is laid out.
        path: Folder or fsspec URL (`s3://bucket/faces`, `gs://...`, `memory://...`); None takes the photo
            folder that the run already has (`photos`, else the drawn people).
        name: Kept with each sample, and in front of its file name; None takes `kind`.
        weight: Share of the set's people that is taken, 1 for all. Who it is follows from the name alone, so
            that another share or new photos never exchange people.
        licence: Licence of photos for which the set states none; None takes the set's own.
        consent: Consent of people for whom the set states none.
        groups: The set's words for groups -> the words of this project. Words that it lacks stay as they are;
            in FairFace they are an error.
        splits: The set's own names of parts -> "train", "validation" or "heldout". People in parts that it
            lacks are drawn by hash.
        columns: For parquet: our names ("image", "identity", "group", ...) -> the set's columns.
        storage_options: For fsspec, e.g. `{endpoint_url: ...}`. Stored with each run: no secrets here, stores
            find them in the environment.
    """

    kind: Literal["folder", "fairface", "celebahq", "ffhq", "parquet"] = "folder"
    path: str | None = None
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    weight: float = Field(default=1.0, gt=0, le=1)
    licence: str | None = None
    consent: str | None = None
    groups: dict[str, str] = FAIRFACE_GROUPS
    splits: dict[str, Literal["train", "validation", "heldout"]] = OFFICIAL_SPLITS  # type: ignore[assignment]
    columns: dict[str, str] = {}
    storage_options: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """The name, or the kind where none is given."""
        return self.name or self.kind


class PrepareConfig(StrictConfig):
    """From photos to samples.

    Attributes:
        sources: Sets of photos; empty takes the run's one photo folder.
        identity_expand: Factor on the face box for the identity crop x_m (PhotoVerse Sec. 3: 1.3).
        target_expand: Factor on the face box for the denoising target x_t (PhotoVerse Sec. 3: 3).
        resolution: Side of x_t in pixels; None takes the base model's own.
        identity_size: Side of x_m in pixels; None takes the image encoder's own.
        several_faces: What to do with a photo of several faces: keep the largest, keep all, or reject the
            photo.
        min_face_px: Faces whose box is narrower than this do not count. Pixels of the original photo.
        min_sharpness: Faces less sharp than this are rejected: variance of the Laplacian of the aligned face,
            grey values 0..255. Blurred faces have below 20-50, depending on the camera; None asks for none.
        max_yaw_degrees: Faces turned further to a side are rejected; None takes all.
        max_roll_degrees: Faces that lie further on a side are rejected; None takes all.
        near_duplicate_bits: Photos whose perceptual hash (256 bits) differs from an earlier one's in at most
            this many bits are rejected as its near duplicate; None rejects exact copies alone.
        person_similarity: Photos without an identity label whose identity embeddings are at least this
            similar (cosine) count as one person; costs one pass over those photos. None: each is a person of
            its own.
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
        face_gpus: GPU share of each face worker, e.g. 0.25: detector, mask and identity network then run by
            CUDA (needs onnxruntime-gpu); 0 keeps them on the CPU.
        encode_workers: Processes that run CLIP and the VAE; None takes every GPU, else half the CPUs.
        contact_sheet_samples: Samples shown on `contact_sheet.png`; 0 makes none.
    """

    sources: tuple[SourceConfig, ...] = ()
    identity_expand: float = Field(default=1.3, ge=1, le=4)
    target_expand: float = Field(default=3.0, ge=1, le=10)
    resolution: int | None = Field(default=None, ge=16, le=2048)
    identity_size: int | None = Field(default=None, ge=16, le=1024)
    several_faces: Literal["largest", "all", "reject"] = "largest"
    min_face_px: int = Field(default=24, ge=4)
    min_sharpness: float | None = Field(default=None, gt=0)
    max_yaw_degrees: float | None = Field(default=None, gt=0, le=90)
    max_roll_degrees: float | None = Field(default=None, gt=0, le=180)
    near_duplicate_bits: int | None = Field(default=None, ge=0, le=64)
    person_similarity: float | None = Field(default=None, gt=0, lt=1)
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
    face_gpus: float = Field(default=0.0, ge=0, le=1)
    encode_workers: int | None = Field(default=None, ge=1)
    contact_sheet_samples: int = Field(default=24, ge=0, le=400)

    @property
    def needs_folder(self) -> bool:
        """Whether a source has no path of its own, so that the run must have a photo folder."""
        return not self.sources or any(source.path is None for source in self.sources)

    @model_validator(mode="after")
    def _somebody_trains(self) -> "PrepareConfig":
        if self.validation_share + self.heldout_share >= 1:
            raise ValueError(
                "validation_share + heldout_share must be below 1: nobody would be left to train on"
            )
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> "PrepareConfig":
        names = [source.label for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"sources: the names {', '.join(twice)} come twice; give each source a name")
        return self
