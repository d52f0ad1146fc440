"""Folders of photos as strangers leave them: one in ten is odd or broken, each in a known way."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from components.core import ShardManifest
from components.shards import load_split, verify_shards

Make = Callable[[np.ndarray], tuple[str, bytes]]


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(head: np.ndarray) -> tuple[str, bytes]:
    """A head that lies on its side in the file, and stands upright as EXIF says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return ".jpg", save(Image.fromarray(np.rot90(head, 1).copy()), "JPEG", exif=exif, quality=95)


def animated(head: np.ndarray) -> tuple[str, bytes]:
    frames = [Image.fromarray(head), Image.fromarray(255 - head)]
    return ".gif", save(frames[0], "GIF", save_all=True, append_images=frames[1:])


def sixteen_bits(head: np.ndarray) -> tuple[str, bytes]:
    return ".png", save(Image.fromarray(head.mean(2).astype(np.uint16) * 257), "PNG")


def bad_exif(head: np.ndarray) -> tuple[str, bytes]:
    return ".jpg", save(
        Image.fromarray(head), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff", quality=95
    )


ODD: dict[str, Make] = {  # odd, and yet a photo
    "turned": turned,
    "bad exif": bad_exif,
    "cmyk": lambda head: (".jpg", save(Image.fromarray(head).convert("CMYK"), "JPEG", quality=95)),
    "16 bit": sixteen_bits,
    "palette": lambda head: (".png", save(Image.fromarray(head).quantize(128), "PNG")),
    "animated": animated,
    "name with späces 人": lambda head: (".PNG", save(Image.fromarray(head), "PNG")),
}
BROKEN: dict[str, tuple[str, Make]] = {  # reason, and how it is made
    "truncated": ("damaged_image", lambda head: (".png", save(Image.fromarray(head), "PNG")[:7000])),
    "zero": ("empty_file", lambda head: (".jpg", b"")),
    "text": ("not_an_image", lambda head: (".jpg", b"I am %d" % head[0, 0, 0])),
    "no face": ("no_face", lambda head: (".png", save(Image.fromarray(head[:40, :40]), "PNG"))),
}


def fill(folder: Path, heads: Callable[[int], np.ndarray], count: int, bomb: bytes) -> dict[str, str | None]:
    """Makes `count` files, every tenth odd or broken.

    Args:
        folder: Gets the files.
        heads: Number -> a photo that is unlike all others.
        count: Files.
        bomb: A PNG that claims 30,000 x 30,000 pixels.

    Returns:
        File -> reason of its reject, None for files that must become samples.
    """
    broken = BROKEN | {"bomb": ("too_many_pixels", lambda head: (".png", bomb + head[0, :2].tobytes()))}
    kinds: list[str] = [*broken, *ODD]
    expected: dict[str, str | None] = {}
    folder.mkdir(parents=True)
    for i in range(count):
        head, kind = heads(i), kinds[i // 10 % len(kinds)] if i % 10 == 3 else ""
        reason, make = broken.get(kind, (None, ODD.get(kind)))
        suffix, data = make(head) if make else (".png", save(Image.fromarray(head), "PNG", compress_level=1))
        if i == count - 1:
            suffix, data, reason, kind = (
                ".png",
                (folder / next(iter(expected))).read_bytes(),
                "duplicate",
                "double",
            )
        name = f"{i:05d} {kind}{suffix}" if kind else f"{i:05d}{suffix}"
        (folder / name).write_bytes(data)
        expected[name] = reason
    return expected


def heads(head: np.ndarray) -> Callable[[int], np.ndarray]:
    """Photos of one head that differ in a few pixels of their corner, also after JPEG and in few colours."""

    head = np.asarray(Image.fromarray(head).resize((128, 128)))

    def make(i: int) -> np.ndarray:
        picture = np.roll(head, i % 5, axis=1).copy()
        for bit in range(12):
            picture[:8, 8 * bit : 8 * bit + 8] = 255 * (i >> bit & 1)
        return picture

    return make


def check_all_accounted_for(manifest: ShardManifest, expected: dict[str, str | None]) -> None:
    """Holds a shard set against what `fill` said: each file in a shard, or in the rejects with its reason."""
    rejects = {row["file"]: row["reason"] for row in pq.read_table(manifest.rejects_file).to_pylist()}
    samples = {sample["meta.json"]["file"] for sample in load_split(manifest, "train", ())}
    assert rejects == {name: reason for name, reason in expected.items() if reason}
    assert samples == {name for name, reason in expected.items() if reason is None}
    assert (manifest.count_in, manifest.count_out) == (len(expected), len(expected) - len(rejects))
    assert sum(manifest.rejects_by_reason.values()) == manifest.rejects
    assert verify_shards(manifest) == []
