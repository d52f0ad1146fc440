"""The mark in the pixels: found where it is, after what people do to pictures, and nowhere else."""

import io

import numpy as np
import pytest
from PIL import Image

from components.inference.watermark import THRESHOLD, embed_watermark, has_watermark, watermark_score
from components.portraits.world import portrait

FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


def jpeg(image, quality=80):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def half(image, how=Image.Resampling.BICUBIC):
    return image.resize((image.width // 2, image.height // 2), how)


def attacks(image):
    for how in FILTERS:
        yield f"half {how.name}, JPEG", jpeg(half(image, how))
        yield f"JPEG, half {how.name}", half(jpeg(image), how)


def psnr(a, b):
    error = np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)
    return 10 * np.log10(255**2 / error)


def survivors(pictures):
    """Checks the row of pictures: each attack leaves at least 99%, nothing is found in clean ones."""
    marked = [embed_watermark(picture) for picture in pictures]
    found: dict[str, list[bool]] = {}
    for picture in marked:
        for name, attacked in attacks(picture):
            found.setdefault(name, []).append(has_watermark(attacked))
    clean = [has_watermark(copy) for picture in pictures
             for copy in (picture, half(jpeg(picture)), jpeg(half(picture)))]  # fmt: skip
    quality = [psnr(*pair) for pair in zip(pictures, marked, strict=True)]
    return {name: np.mean(hits) for name, hits in found.items()}, sum(clean), np.mean(quality)


@pytest.fixture(scope="module")
def people():
    return [Image.fromarray(portrait(person, 1, 128).image_uint8) for person in range(100)]


def test_of_100_pictures_of_64_px_99_are_known_after_jpeg_and_half_size_and_no_clean_one(people):
    found, clean, quality = survivors([half(picture, Image.Resampling.BOX) for picture in people])
    assert min(found.values()) >= 0.99, found
    assert clean == 0
    assert quality > 32


@pytest.mark.parametrize(("side", "least"), [(256, 41), (512, 41)])
def test_larger_pictures_are_marked_more_quietly(people, side, least):
    found, clean, quality = survivors([picture.resize((side, side)) for picture in people[:6]])
    assert min(found.values()) == 1
    assert clean == 0
    assert quality > least


@pytest.mark.slow
@pytest.mark.parametrize(("side", "least"), [(64, 34), (256, 48), (512, 48)])
def test_pictures_as_the_portrait_base_makes_them(base_pictures, side, least):
    found, clean, quality = survivors([picture.resize((side, side)) for picture in base_pictures])
    print(f"\n{side} px: worst {min(found.values()):.2f}, clean {clean} of 300, PSNR {quality:.1f} dB")
    assert min(found.values()) >= 0.99, found
    assert clean == 0
    assert quality > least


@pytest.fixture(scope="module")
def base_pictures():
    import torch

    from components.model import ModelConfig, load_pipeline

    pipe = load_pipeline(ModelConfig(base="components/portraits/base"))
    pictures = []
    for start in range(0, 100, 20):
        people = range(start, start + 20)
        pictures += pipe(
            [portrait(person, 0).caption for person in people], guidance_scale=2.0, num_inference_steps=12,
            generator=[torch.Generator().manual_seed(person) for person in people],
        ).images  # fmt: skip
    return pictures


def test_another_key_finds_nothing_and_its_own_does(people):
    marked = embed_watermark(people[0], "a secret")
    assert watermark_score(marked, "a secret") > THRESHOLD
    assert not has_watermark(marked)


def test_scores_of_clean_pictures_are_normal_for_every_key(people):
    scores = [watermark_score(people[0], f"key {i}") for i in range(300)]
    assert 0.3 < np.mean(scores) < 0.8  # the larger of two normal numbers: 0.56
    assert 0.7 < np.std(scores) < 1.1
    assert max(scores) < THRESHOLD


def test_pictures_that_differ_by_rounding_are_marked_alike(people):
    pixels = np.asarray(half(people[3])).copy()
    before = np.asarray(embed_watermark(Image.fromarray(pixels))).astype(int)
    pixels[30, 20, 1] ^= 1
    after = np.asarray(embed_watermark(Image.fromarray(pixels))).astype(int)
    assert np.abs(before - after).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(48, 200), (300, 120), (33, 32)])
def test_any_shape_from_32_px_on_has_room(height, width, people):
    picture = people[1].resize((width, height))
    marked = embed_watermark(picture)
    assert marked.size == picture.size
    assert has_watermark(marked)


def test_what_has_no_room_stays_as_it_is(people):
    tiny = people[0].resize((31, 200))
    assert embed_watermark(tiny) is tiny
    assert watermark_score(people[0].resize((9, 9))) == 0
    blank = Image.new("RGB", (64, 64), "white")
    assert not has_watermark(blank)
    assert np.abs(np.asarray(embed_watermark(blank)).astype(int) - 255).max() < 16
