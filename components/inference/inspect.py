"""A picture file -> all that it says of its making: metadata, mark in the pixels, signature."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from components.inference.credentials import read_manifest
from components.inference.provenance import recipe_of, source_type_of
from components.inference.watermark import DEFAULT_KEY, THRESHOLD, watermark_score

MOST_PIXELS = 64_000_000


@dataclass(frozen=True)
class Inspection:
    """What was found in a picture.

    Attributes:
        recipe: Model, adapter hash, seed, prompt hash, dials; None if the metadata hold none.
        source_type: IPTC digital source type; None if the metadata state none.
        watermark_score: z of the mark in the pixels.
        credentials: See `read_manifest`; None if the file is not signed.
        threshold: Score from which on the mark is there.
    """

    recipe: dict[str, Any] | None
    source_type: str | None
    watermark_score: float
    credentials: dict[str, Any] | None
    threshold: float = THRESHOLD

    @property
    def watermarked(self) -> bool:
        """Whether the mark is there."""
        return self.watermark_score >= self.threshold

    @property
    def ours(self) -> bool:
        """Whether anything in it says that PhotoVerse drew it."""
        return self.recipe is not None or self.watermarked


def inspect_picture(path: Path, key: str = DEFAULT_KEY) -> Inspection:
    """Looks at a PNG or JPEG file.

    Args:
        path: The file.
        key: Of the mark.

    Raises:
        ValueError: There is no file, it is no picture, or it is too large.
    """
    if not path.is_file():
        raise ValueError(f"no picture at {path}")
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(
                    f"{path.name} has {image.width} x {image.height} pixels; allowed: {MOST_PIXELS}"
                )
            image.load()  # a PNG may keep its text behind the pixels
            mime = Image.MIME[image.format or "PNG"]
            found = Inspection(
                recipe_of(image),
                source_type_of(image),
                watermark_score(image, key),
                read_manifest(data, mime),
            )
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name} is no PNG or JPEG picture that can be read: {error}") from None
    return found
