import io

import numpy as np
import pytest
from PIL import Image

from components.face import PhotoError, decode_photo

LIMIT = 1_000_000
GRADIENT = np.dstack(np.broadcast_arrays(
    np.arange(64, dtype=np.uint8)[None, :] * 3, np.arange(48, dtype=np.uint8)[:, None] * 4, np.uint8(90)
)).copy()  # fmt: skip


def reason(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(PhotoError) as caught:
        decode_photo(data, limit)
    assert caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "JPEG", "WEBP"])
def test_usual_formats_are_read(as_bytes, kind: str) -> None:
    decoded = decode_photo(as_bytes(GRADIENT, kind, **({"lossless": True} if kind == "WEBP" else {})), LIMIT)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (48, 64, 3)
    tolerance = {"JPEG": 12, "GIF": 40}.get(kind, 0)
    assert np.abs(decoded.astype(int) - GRADIENT).max() <= tolerance


def test_what_is_no_image() -> None:
    assert reason(b"") == "empty_file"
    assert reason(b"hello, I am a text file named .jpg") == "not_an_image"
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == "not_an_image"
    assert reason(bytes(1000)) == "not_an_image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_truncated_image_is_damaged(as_bytes, kind: str, share: float) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = as_bytes(noisy, kind)
    assert reason(data[: int(len(data) * share)]) in ("damaged_image", "not_an_image")


def test_truncation_that_leaves_the_header_is_called_damage(as_bytes) -> None:
    data = as_bytes(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8), "JPEG")
    assert reason(data[: len(data) // 2]) == "damaged_image"


def test_bombs_are_refused_before_they_are_unpacked(png_header) -> None:
    assert reason(png_header(30_000, 30_000)) == "too_many_pixels"
    assert reason(png_header(30_000, 30_000), limit=64_000_000) == "too_many_pixels"
    assert reason(png_header(9_000, 9_000), limit=64_000_000) == "too_many_pixels"  # below Pillow's own limit
    assert reason(png_header(101, 100), limit=10_000) == "too_many_pixels"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_exif_says(as_bytes, orientation: int) -> None:
    undo = {
        2: 0,
        3: 3,
        4: 1,
        5: 5,
        6: 2,
        7: 6,
        8: 4,
    }  # orientation -> PIL's transpose that leads there from upright
    stored = Image.fromarray(GRADIENT)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_photo(as_bytes(stored, "PNG", exif=exif), LIMIT)
    np.testing.assert_array_equal(decoded, GRADIENT)


def test_broken_exif_loses_nothing(as_bytes) -> None:
    for exif in (b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"\0"):
        assert decode_photo(as_bytes(GRADIENT, "JPEG", exif=exif), LIMIT).shape == (48, 64, 3)


def test_cmyk_palette_grey_and_bilevel(as_bytes) -> None:
    image = Image.fromarray(GRADIENT)
    cmyk = decode_photo(as_bytes(image.convert("CMYK"), "JPEG", quality=95), LIMIT)
    assert np.abs(cmyk.astype(int) - GRADIENT).mean() < 4
    palette = decode_photo(as_bytes(image.convert("P", palette=Image.Palette.ADAPTIVE)), LIMIT)
    assert np.abs(palette.astype(int) - GRADIENT).mean() < 8
    grey = decode_photo(as_bytes(image.convert("L")), LIMIT)
    np.testing.assert_array_equal(grey, np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2))
    assert set(np.unique(decode_photo(as_bytes(image.convert("1")), LIMIT))) == {0, 255}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_become_8_and_not_white(as_bytes, kind: str) -> None:
    grey = (np.arange(48 * 64).reshape(48, 64) * 21).astype(np.uint16)
    decoded = decode_photo(as_bytes(Image.fromarray(grey), kind), LIMIT)
    np.testing.assert_array_equal(decoded[..., 1], grey // 257)


def test_floating_grey(as_bytes) -> None:
    grey = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64)
    decoded = decode_photo(as_bytes(Image.fromarray(grey), "TIFF"), LIMIT)
    np.testing.assert_allclose(decoded[..., 0], grey * 255, atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_goes_over_white(as_bytes, mode: str) -> None:
    rgba = np.dstack([GRADIENT, np.full(GRADIENT.shape[:2], 255, np.uint8)])
    rgba[:, :32, 3] = 0
    image = Image.fromarray(rgba)
    if mode == "PA":
        palette = image.convert("RGB").convert("P")
        palette.info["transparency"] = palette.getpixel((0, 0))
        data = as_bytes(palette, "PNG", transparency=palette.getpixel((0, 0)))
        np.testing.assert_array_equal(decode_photo(data, LIMIT)[0, 0], 255)
        return
    decoded = decode_photo(as_bytes(image if mode == "RGBA" else image.convert("LA")), LIMIT)
    assert (decoded[:, :32] == 255).all()
    assert (decoded[:, 32:] != 255).any()


def test_an_animation_gives_its_first_frame() -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=50)
    decoded = decode_photo(buffer.getvalue(), LIMIT)
    assert decoded.shape == (10, 20, 3)
    np.testing.assert_array_equal(decoded[5, 5], [255, 0, 0])
