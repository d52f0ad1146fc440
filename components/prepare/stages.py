"""The workers of the pipeline: classes that load their networks once, for Ray Data actors or a plain loop.

Tables are pyarrow; one call is one slice of one shard, so what goes through a network together never depends
on chance. A fault on one photo makes a reject row, never an exception.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from components.face import (
    Face,
    IdentityEncoder,
    PhotoError,
    decode_photo,
    load_detector,
    load_masker,
    paint_outside,
    part_of,
    parts_mask,
)
from components.prepare.doubles import picture_hash
from components.prepare.sources import Library, OutsideError, digest_of
from components.prepare.spec import PrepareSpec
from components.prepare.transforms import (
    Reject,
    check_quality,
    choose_faces,
    cut_face,
    face_facts,
    rounded,
)
from components.shards import FIELDS, check, encode

if TYPE_CHECKING:
    from components.model import ModelConfig

logger = logging.getLogger(__name__)
Row = dict[str, Any]

# `position` is the photo's place in its shard; `face` counts the faces of a photo; a row with a reason is a
# reject.
_PLACE = [("shard", pa.string()), ("position", pa.int32()), ("file", pa.string())]
_ABOUT = [(name, pa.string()) for name in ("person", "split", "about")]
PHOTO_SCHEMA = pa.schema([*_PLACE, *_ABOUT, ("masks", pa.list_(pa.string()))])
_RESULT = [
    *_PLACE,
    ("face", pa.int32()),
    ("reason", pa.string()),
    ("detail", pa.string()),
    ("sha256", pa.string()),
    ("masks_sha256", pa.string()),
    ("picture_hash", pa.string()),
    ("meta", pa.string()),
]
FACE_SCHEMA = pa.schema([*_RESULT, *((name, pa.binary()) for name in ("crop", "mask", "target", "identity"))])
SAMPLE_SCHEMA = pa.schema([*_RESULT, *((field.name, pa.binary()) for field in FIELDS)])


class FaceStage:
    """Photos -> faces: read, decode, detect, crop, mask, identity embedding.

    Args:
        spec: The resolved settings.
        library: Where the photos are.
    """

    def __init__(self, spec: PrepareSpec, library: Library) -> None:
        import cv2

        cv2.setNumThreads(1)  # one process a CPU; more threads would only fight
        self.spec, self.photo_library = spec, library
        device = "cuda" if spec.prepare.face_gpus else "cpu"
        self.detector, self.masker = load_detector(spec.face, device), load_masker(spec.face, device)
        self.identity = IdentityEncoder(spec.identity_onnx, device)

    def __call__(self, photos: pa.Table) -> pa.Table:
        """Turns rows of `PHOTO_SCHEMA` into rows of `FACE_SCHEMA`, in order."""
        one_shard(photos)
        rows = [row for photo in photos.to_pylist() for row in self.faces_of(photo)]
        return pa.Table.from_pylist(rows, schema=FACE_SCHEMA)

    def faces_of(self, photo: Row) -> list[Row]:
        """Returns a row for each kept face, or one reject row."""
        place: Row = {name: photo[name] for name in ("shard", "position", "file")} | {"face": 0}
        try:
            data = read_photo(self.photo_library, photo["file"], self.spec.prepare.max_file_mb)
            place["sha256"] = hashlib.sha256(data).hexdigest()
            masks = self._masks_of(photo["masks"] or [], place)
            return [place | row for row in self._rows(photo, data, place["sha256"], masks)]
        except (Reject, PhotoError) as reject:
            return [place | {"reason": reject.reason, "detail": reject.detail}]
        except Exception as error:
            logger.exception("%s", photo["file"])
            return [place | {"reason": "internal_error", "detail": f"{type(error).__name__}: {error}"}]

    def _rows(self, photo: Row, data: bytes, sha256: str, masks: dict[str, bytes]) -> Iterator[Row]:
        """Yields the kept faces; those of poor quality are left out as long as another one is kept."""
        config = self.spec.prepare
        image = decode_photo(data, config.max_pixels)
        faces = choose_faces(self.detector(image), config.several_faces, config.min_face_px)
        common = {"picture_hash": picture_hash(image)} if config.near_duplicate_bits is not None else {}
        own_mask = self._own_mask(masks, image.shape[:2])
        poor: Reject | None = None
        kept = 0
        for number, face in enumerate(faces):
            try:
                yield common | self._face_row(photo, sha256, image, number, face, own_mask)
                kept += 1
            except Reject as reject:
                poor = poor or reject
        if poor is not None and not kept:
            raise poor

    def _face_row(
        self, photo: Row, sha256: str, image: np.ndarray, number: int, face: Face, own_mask: np.ndarray | None
    ) -> Row:
        config = self.spec.prepare
        cut = cut_face(
            image,
            face,
            self.masker,
            identity_expand=config.identity_expand,
            identity_size=self.spec.identity_size,
            target_expand=config.target_expand,
            resolution=self.spec.resolution,
            aligned_size=self.identity.input_size,
            own_mask_uint8=own_mask,
        )
        facts = {
            # A label names the main face; who stands beside is somebody else, of the same split.
            "person": photo["person"] if number == 0 else f"{photo['person']}#{number}",
            "split": photo["split"],
            "file": photo["file"],
            "sha256": sha256,
            "target_landmarks_xy": rounded(cut.target_landmarks_xy),
        } | face_facts(face, image, cut.aligned_uint8)
        check_quality(facts, config)
        return {
            "face": number,
            "meta": json.dumps(json.loads(photo["about"]) | facts),
            "crop": cut.crop_uint8.tobytes(),
            "mask": cut.mask_uint8.tobytes(),
            "target": cut.target_uint8.tobytes(),
            "identity": self.identity.embed(cut.aligned_uint8[None])[0].tobytes(),
        }

    def _masks_of(self, files: list[str], place: Row) -> dict[str, bytes]:
        """Reads the set's own masks of a photo and puts their checksum on the row: file -> bytes."""
        found: dict[str, bytes] = {}
        for file in files:
            with _named(file):
                found[file] = read_photo(self.photo_library, file, self.spec.prepare.max_file_mb)
        if found:
            place["masks_sha256"] = digest_of(found.values())
        return found

    def _own_mask(self, masks: dict[str, bytes], shape_hw: tuple[int, int]) -> np.ndarray | None:
        """Returns the set's own mask of the photo, uint8 (H, W), or None where it has none."""
        if not masks:
            return None
        parts = {}
        for file, data in masks.items():
            with _named(file):
                parts[part_of(file)] = decode_photo(data, self.spec.prepare.max_pixels)
        return parts_mask(parts, shape_hw, self.spec.face)


class EncodeStage:
    """Faces -> encoded samples: CLIP features, VAE posterior, everything as the files of a shard.

    Args:
        spec: The resolved settings.
        model: Base model and image encoder.
        device: "cpu" or "cuda".
    """

    def __init__(self, spec: PrepareSpec, model: "ModelConfig", device: str = "cpu") -> None:
        import torch
        from transformers.utils.logging import disable_progress_bar

        from components.core import pick_dtype
        from components.model import load_extractor, load_vae

        disable_progress_bar()
        wish = "float16" if spec.dtype == "auto" and device != "cpu" else spec.dtype
        self.device, self.dtype = torch.device(device), pick_dtype(torch.device(device), wish)
        self.spec = spec
        self.extractor = load_extractor(model, self.device, self.dtype)
        self.vae = load_vae(model, self.device, self.dtype) if spec.prepare.encode_latents else None

    def __call__(self, faces: pa.Table) -> pa.Table:
        """Turns rows of `FACE_SCHEMA` into rows of `SAMPLE_SCHEMA`, in order."""
        one_shard(faces)
        rows: list[Row] = []
        size = self.spec.prepare.batch_size
        for start in range(0, len(faces), size):
            rows += self._encode(faces.slice(start, size).to_pylist())
        return pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA)

    def _encode(self, rows: list[Row]) -> list[Row]:
        kept = [row for row in rows if row["reason"] is None]
        samples = iter(self.samples(kept) if kept else [])
        return [self._finished(row, next(samples)) if row["reason"] is None else row for row in rows]

    def samples(self, rows: list[Row]) -> list[Row]:
        """Returns the decoded samples of rows that hold faces."""
        size, side = self.spec.identity_size, self.spec.resolution
        crops, masks = _stacked(rows, "crop", (size, size, 3)), _stacked(rows, "mask", (size, size))
        targets = _stacked(rows, "target", (side, side, 3))
        painted = np.stack(
            [paint_outside(c, m, self.extractor.fill_rgb_uint8) for c, m in zip(crops, masks, strict=True)]
        )
        features = self.extractor(self.extractor.preprocess(painted)).float().cpu().numpy().astype(np.float16)
        latents = None if self.vae is None else self.posterior(targets)
        return [
            {
                "__key__": sample_key(row),
                "photo.png": painted[i],
                "mask.png": masks[i],
                "target.png": targets[i],
                "features.npy": features[i],
                "identity.npy": np.frombuffer(row["identity"], np.float32),
                "meta.json": json.loads(row["meta"]),
            }
            | ({} if latents is None else {"latents.npy": latents[i]})
            for i, row in enumerate(rows)
        ]

    def posterior(self, targets_uint8: np.ndarray) -> np.ndarray:
        """Returns mean and std of the VAE's posterior, float16 (B, 2C, h, w), before `scaling_factor`."""
        import torch

        assert self.vae is not None
        with torch.inference_mode():
            pixels = torch.from_numpy(targets_uint8.copy()).to(self.device).permute(0, 3, 1, 2)
            latent = self.vae.encode((pixels.float() / 127.5 - 1).to(self.dtype)).latent_dist
            both = torch.cat([latent.mean, latent.std], dim=1)
        return both.float().cpu().numpy().astype(np.float16)

    def _finished(self, row: Row, sample: Row) -> Row:
        place = {field.name: row[field.name] for field in pa.schema(_RESULT)}
        try:
            check(sample)
        except ValueError as error:
            logger.error("%s", error)
            return place | {"reason": "internal_error", "detail": str(error)}
        encoded = encode(sample)
        files = {name: value for name, value in encoded.items() if not name.startswith("__")}
        return place | files | {"meta": files.pop("meta.json").decode()}


def read_photo(library: Library, file: str, max_mb: int) -> bytes:
    """Returns the bytes of a photo.

    Raises:
        Reject: outside_folder, missing_file, file_too_large or unreadable_file.
    """
    limit = max_mb * 2**20
    try:
        size = library.size(file)
        if size > limit:
            raise Reject("file_too_large", f"{size / 2**20:.0f} MB, at most {max_mb}")
        return library.read(file)
    except OutsideError as error:
        raise Reject("outside_folder", str(error)) from error
    except FileNotFoundError as error:
        raise Reject("missing_file", "named in the source's table, but not there") from error
    except OSError as error:
        raise Reject("unreadable_file", f"{type(error).__name__}: {error.strerror or error}") from error


@contextmanager
def _named(file: str) -> Iterator[None]:
    """Puts the name of a mask in front of what is wrong with it."""
    try:
        yield
    except (Reject, PhotoError) as reject:
        raise Reject(reject.reason, f"{file.rsplit('/', 1)[-1]}: {reject.detail}") from reject


def sample_key(row: Row) -> str:
    """Returns "<16 hex digits of the photo's SHA-256>-<number of the face>".

    Eight digits would not do: among 70,000 photos two would share them with probability 0.43.
    """
    return f"{row['sha256'][:16]}-{row['face']}"


def one_shard(table: pa.Table) -> None:
    """Checks that a call got rows of one shard only: what Ray Data hands over with `batch_size=None`."""
    shards = set(table["shard"].to_pylist())
    assert len(shards) <= 1, f"a slice holds rows of several shards: {sorted(shards)}"


def _stacked(rows: list[Row], name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([np.frombuffer(row[name], np.uint8).reshape(shape) for row in rows])
