"""Bytes of a photo -> the RGB picture that people see. Strangers' files: nothing in them may hurt or kill.

One code for preparation and inference. Not inside: where the bytes come from.
"""

import io
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

PhotoFault = Literal["empty_file", "not_an_image", "damaged_image", "too_many_pixels"]

# What photos come as. No EPS, PDF or other formats that run programs or hide pages.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")


class PhotoError(ValueError):
    """A file that gives no picture.

    Attributes:
        reason: Stable code.
        detail: What was found, for people.
    """

    def __init__(self, reason: PhotoFault, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def decode_photo(data: bytes, max_pixels: int) -> np.ndarray:
    """Returns the photo as people see it: uint8 RGB (H, W, 3), turned as its EXIF says, first frame.

    Raises:
        PhotoError: empty_file, not_an_image, too_many_pixels or damaged_image.
    """
    if not data:
        raise PhotoError("empty_file", "0 bytes")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow warns of large images and odd metadata; both are handled here
        try:
            image = Image.open(io.BytesIO(data), formats=_formats())
        except Image.DecompressionBombError as error:
            raise PhotoError("too_many_pixels", str(error)) from error
        except UnidentifiedImageError as error:
            raise PhotoError("not_an_image", f"starts with {data[:8]!r}") from error
        except Exception as error:  # a broken header raises whatever the format's parser does
            raise PhotoError("damaged_image", f"{type(error).__name__}: {error}") from error
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise PhotoError("too_many_pixels", f"{width} x {height}, at most {max_pixels} pixels")
            try:
                return np.asarray(to_rgb(_upright(image)))
            except Exception as error:
                raise PhotoError("damaged_image", f"{type(error).__name__}: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any mode to RGB: transparency over white, 16 bits scaled to 8, CMYK and palettes by Pillow."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _upright(image: Image.Image) -> Image.Image:
    """Loads the pixels and turns them as EXIF says; an EXIF block that cannot be read is ignored."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - broken metadata is no reason to lose a whole picture
        return image


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scales 16-bit (0..65535) and floating (0..1) grey values to 0..255."""
    if values.dtype.kind == "f":
        scale = 255.0 if values.size and np.nanmax(values) <= 1 else 1.0
        return np.clip(np.nan_to_num(values) * scale, 0, 255).astype(np.uint8)
    if values.dtype == np.uint8 or values.max(initial=0) <= 255 and values.dtype != np.uint16:
        return values.astype(np.uint8)
    return (np.clip(values, 0, 65535) // 257).astype(np.uint8)
