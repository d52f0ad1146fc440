"""One request to the served model: its schema, and a strict reading of it.

MLflow's own checks are lax (unknown fields pass, bad base64 becomes an empty photo), so everything is checked
here. A fault is a `ValueError` of one line that names the field and what is allowed, and never repeats what
was sent.
"""

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.inference import Consent
from components.registry.config import ServingLimits

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP")
SEED_LIMIT = 2**32


class RequestDials(BaseModel):
    """The dials of a request; None keeps the model's own value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    gamma: float | None = Field(default=None, ge=0, le=4)
    sigma: float | None = Field(default=None, ge=0, le=4)
    alpha: float | None = Field(default=None, ge=0, le=4)
    m: int | None = Field(default=None, ge=1)
    guidance_scale: float | None = Field(default=None, ge=1, le=30)
    num_inference_steps: int | None = Field(default=None, ge=1)
    candidates: int | None = Field(default=None, ge=1)


class Request(BaseModel):
    """One person, one prompt, one or several pictures.

    Attributes:
        photo: The photo's file (JPEG, PNG or WebP) as standard base64.
        consent: Who agreed to what, and when (`person`, `purpose`, `given`); a photo without it is refused.
        card: ID of a kept identity card, in place of photo and consent.
        prompt: What to show; S* is the person.
        negative_prompt: What not to show.
        seed: Seed of the first picture; the next ones count up.
        pictures: How many.
        dials: See `RequestDials`.
        strength: Image-to-image: starts from the photo, this far noised.
        similarity: Whether to say how alike each picture is to the photo.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    photo: str | None = None
    consent: Consent | None = None
    card: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    prompt: str
    negative_prompt: str = ""
    seed: int = Field(default=0, ge=0, lt=SEED_LIMIT)
    pictures: int = Field(default=1, ge=1)
    dials: RequestDials = RequestDials()
    strength: float | None = Field(default=None, gt=0, le=1)
    similarity: bool = False

    @property
    def seeds(self) -> list[int]:
        """Seed of each picture."""
        return [(self.seed + k) % SEED_LIMIT for k in range(self.pictures)]


def parse_requests(values: Any, limits: ServingLimits) -> list[Request]:
    """Checks the requests of a call.

    Args:
        values: What the caller sent: a list of mappings.
        limits: What may be asked for.

    Raises:
        ValueError: One line; faults of a call of several name the request by its number, from 0.
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise ValueError(f"expected a list of requests, found {type(values).__name__}")
    if not 1 <= len(values) <= limits.requests:
        raise ValueError(f"{len(values)} requests in one call; allowed: 1 to {limits.requests}")
    requests = []
    for number, value in enumerate(values):
        try:
            requests.append(parse_request(value, limits))
        except ValueError as error:
            raise ValueError(f"request {number}: {error}") from None
    return requests


def parse_request(value: Any, limits: ServingLimits) -> Request:
    """Checks one request; raises ValueError of one line."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping of fields, found {type(value).__name__}")
    try:
        request = Request.model_validate(value)
    except ValidationError as error:
        raise ValueError(_fault_line(error)) from None
    steps = request.dials.num_inference_steps or 1
    for name, found, most in (
        ("pictures", request.pictures, limits.pictures),
        ("dials.num_inference_steps", steps, limits.steps),
        ("dials.candidates", request.dials.candidates or 1, limits.candidates),
        ("characters of prompt", len(request.prompt), limits.prompt_characters),
        ("characters of negative_prompt", len(request.negative_prompt), limits.prompt_characters),
    ):
        if found > most:
            raise ValueError(f"{name}: {found} is above the limit of {most}")
    purpose = "" if request.consent is None else request.consent.purpose
    for name, text in (
        ("prompt", request.prompt),
        ("negative_prompt", request.negative_prompt),
        ("purpose", purpose),
    ):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"{name}: holds half a character (a lone surrogate)")
    if not request.prompt.strip():
        raise ValueError("prompt: is empty")
    _check_person(request)
    return request


def _check_person(request: Request) -> None:
    """Refuses a request that does not say who is meant, or rests on no consent; raises ValueError."""
    if (request.photo is None) == (request.card is None):
        raise ValueError("photo: who is meant? send photo and consent, or card")
    if request.photo is not None and request.consent is None:
        raise ValueError("consent: Field required with a photo: person, purpose, given")
    if request.consent is not None:
        request.consent.check_named()
    if request.card is not None:
        for name, there in (
            ("consent", request.consent is not None),
            ("strength", request.strength is not None),
            ("similarity", request.similarity),
        ):
            if there:
                raise ValueError(f"{name}: belongs to a photo; this request names a card")


def request_schema() -> dict[str, Any]:
    """Returns the JSON schema of a request, for callers that check before they send."""
    schema = Request.model_json_schema()
    one_of = [{"required": ["photo", "consent"]}, {"required": ["card"]}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"oneOf": one_of}


def _fault_line(error: ValidationError) -> str:
    """Returns all faults in one line, without what was sent; names of unknown fields are cut."""
    known = {*Request.model_fields, *RequestDials.model_fields, *Consent.model_fields}
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        parts = [str(part) if part in known else repr(str(part)[:40]) for part in fault["loc"]]
        words = "unknown field" if fault["type"] == "extra_forbidden" else fault["msg"]
        faults.append(f"{'.'.join(parts)}: {words}")
    shown = faults[:5]
    return "; ".join(shown) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")


def decode_photo(photo: str, limits: ServingLimits) -> NDArray[np.uint8]:
    """Returns the photo as (H, W, 3) RGB uint8, turned upright by its EXIF tag.

    Raises:
        ValueError: It is no base64, no JPEG, PNG or WebP, damaged, or too large in bytes or pixels.
    """
    if len(photo) > limits.photo_bytes * 4 // 3 + 4:
        raise ValueError(f"photo: the file is larger than {limits.photo_bytes} bytes")
    try:
        data = base64.b64decode(photo, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("photo: is not valid base64 of a file") from None
    try:
        with Image.open(io.BytesIO(data), formats=PHOTO_FORMATS) as image:
            width, height = image.size
            if width * height > limits.photo_pixels:
                raise ValueError(f"photo: {width} x {height} pixels; allowed: {limits.photo_pixels} in all")
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        raise ValueError(f"photo: is no picture file of a known kind ({', '.join(PHOTO_FORMATS)})") from None
    except Image.DecompressionBombError:
        raise ValueError(f"photo: too many pixels; allowed: {limits.photo_pixels} in all") from None
    except (OSError, SyntaxError, EOFError, TypeError, KeyError, IndexError, OverflowError, MemoryError):
        raise ValueError("photo: the file is damaged") from None  # each of Pillow's decoders has its own ways
