"""An invisible mark that says "drawn by PhotoVerse": in the pixels, so that it outlives the metadata.

A presence mark under a key, no message: 0 bits of payload, so that a picture of 64 pixels has room for it.

Notation: x (N,) are the picture's lowest frequencies (full-frame DCT of its brightness), w their secret
signs, c the picture's own typical size of each. The score is z = <w, g> / |g| with g = 2cx / (c^2 + x^2):
large coefficients, which belong to the picture alone, fall out of it. For signs that have nothing to do with
the picture P(z > t) <= exp(-t^2 / 2) (Hoeffding): 1.5e-4 at the threshold, 1.3e-5 if z is normal, each for
two grids. The marker climbs the gradient of z to `TARGET`, more where the picture is busy: a continuous map,
so that pictures that differ by rounding are marked alike.

The frequencies of the whole frame are what a smaller copy shares with its original, so nothing has to be
aligned. Turning, mirroring and cropping remove the mark, as does anybody who knows the key.
"""

import hashlib
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.fft import dctn, idctn
from scipy.ndimage import uniform_filter

DEFAULT_KEY = "photoverse"
THRESHOLD = 4.2
TARGET = 9.0
GRIDS = (32, 64)  # frequencies an axis; pictures from LARGE px on have the finer one, which is seen less
LARGE = 192
BAND = (10, 22)  # of 32: below it a mark is seen, above it small JPEG files forget it
FALL = 1.3  # how brightness falls with frequency, measured on drawn and photographed faces
FLOOR = 2.0  # grey levels below which a coefficient is rounding
CALM = 12.0  # grey levels: how much a flat place is marked, beside the local contrast of a busy one
BUSIEST = 24.0
LUMA = np.array([0.299, 0.587, 0.114])
STEP, MAX_STEPS = 0.16, 600


def embed_watermark(image: Image.Image, key: str = DEFAULT_KEY) -> Image.Image:
    """Returns the RGB picture with the mark; `info` is kept.

    A picture less than 32 pixels high or wide comes back as it is: it has no room for the mark.
    """
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    shape = pixels.shape[:2]
    if min(shape) < GRIDS[0]:
        return image
    grid = GRIDS[1] if min(shape) >= LARGE else GRIDS[0]
    height, width = (min(2 * grid, side) for side in shape)
    small = np.zeros((2 * grid, 2 * grid))
    scale = 2 * grid / np.sqrt(shape[0] * shape[1])
    small[:height, :width] = dctn(pixels @ LUMA, norm="ortho")[:height, :width] * scale
    change = dctn(_climb(idctn(small, norm="ortho"), key, grid), norm="ortho")
    full = np.zeros(shape)
    full[:height, :width] = change[:height, :width] / scale
    marked = np.clip(np.rint(pixels + idctn(full, norm="ortho")[..., None]), 0, 255).astype(np.uint8)
    result = Image.fromarray(marked)
    result.info |= image.info
    return result


def watermark_score(image: Image.Image, key: str = DEFAULT_KEY) -> float:
    """Returns z, the best of the grids: nearly normal (0, 1) without the mark, `THRESHOLD` or more with."""
    brightness = np.asarray(image.convert("RGB"), dtype=np.float64) @ LUMA
    grids = [grid for grid in GRIDS if grid <= min(brightness.shape)]
    return max((_score(_frequencies(brightness, grid), key, grid)[0] for grid in grids), default=0.0)


def has_watermark(image: Image.Image, key: str = DEFAULT_KEY) -> bool:
    """Whether the picture carries the mark of that key."""
    return watermark_score(image, key) >= THRESHOLD


@lru_cache(maxsize=8)
def _band(grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the marked frequencies, bool (grid, grid), and how strong they are in most pictures, (N,)."""
    radius = np.hypot(*np.mgrid[:grid, :grid]) * GRIDS[0] / grid
    band = (radius >= BAND[0]) & (radius < BAND[1])
    return band, radius[band] ** -FALL


@lru_cache(maxsize=8)
def _signs(key: str, grid: int) -> np.ndarray:
    """Returns w (N,), -1 or 1: the bits of a hash, the same in every version of every library."""
    count = int(_band(grid)[0].sum())
    stream = hashlib.shake_256(f"{key}\0{grid}".encode()).digest(-(-count // 8))
    return np.unpackbits(np.frombuffer(stream, np.uint8))[:count] * 2.0 - 1.0


def _frequencies(brightness: np.ndarray, grid: int) -> np.ndarray:
    """Returns x (N,): the same values, as of a picture of 32 px, whatever the size."""
    low = dctn(brightness, norm="ortho")[:grid, :grid]
    return low[_band(grid)[0]] * GRIDS[0] / np.sqrt(brightness.size)


def _score(x: np.ndarray, key: str, grid: int) -> tuple[float, np.ndarray]:
    """Returns z and its gradient by x (N,), c held."""
    fall, signs = _band(grid)[1], _signs(key, grid)
    c = np.hypot(np.median(np.abs(x) / fall) * fall, FLOOR)
    g = 2 * c * x / (c**2 + x**2)
    length = np.sqrt(g @ g) + 1e-9
    z = float(g @ signs) / length
    slope = 2 * c * (c**2 - x**2) / (c**2 + x**2) ** 2
    return z, slope * (signs / length - z * g / length**2)


def _climb(brightness: np.ndarray, key: str, grid: int) -> np.ndarray:
    """Returns the least change, weighed by what is seen, with which (2 grid, 2 grid) scores `TARGET`."""
    weight = _busyness(brightness) ** 2
    change = np.zeros_like(brightness)
    stride = STEP * np.sqrt(len(_band(grid)[1])) * 2 * grid / GRIDS[0]
    z, gradient = _score(_frequencies(brightness, grid), key, grid)
    for _ in range(MAX_STEPS):
        if z >= TARGET:
            break
        step = np.zeros_like(brightness)
        step[:grid, :grid][_band(grid)[0]] = gradient
        step = weight * idctn(step, norm="ortho")
        step *= stride / (np.linalg.norm(step) + 1e-12)
        before = z
        z, gradient = _score(_frequencies(brightness + change + step, grid), key, grid)
        # stop on the way: no jump between pictures that are nearly the same
        change += step if z < TARGET else step * (TARGET - before) / (z - before)
    return change


def _busyness(brightness: np.ndarray) -> np.ndarray:
    """Returns how little a change is seen at each place: the local contrast, and never nothing."""
    mean = uniform_filter(brightness, 5, mode="nearest")
    contrast = np.sqrt(np.maximum(uniform_filter(brightness**2, 5, mode="nearest") - mean**2, 0))
    return CALM + np.minimum(contrast, BUSIEST)
