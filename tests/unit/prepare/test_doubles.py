"""Exact and near duplicates: the hash, the index, and the pipeline that names what is repeated."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import skimage
from PIL import Image, ImageEnhance

from components.prepare import PrepareConfig
from components.prepare.doubles import Doubles, picture_hash
from components.prepare.sources import Catalogue
from components.shards import verify_shards

ALL_TRAIN = {"validation_share": 0.0, "heldout_share": 0.0}
PHOTO = Image.fromarray(skimage.data.astronaut()[20:276, 90:346])


def bits(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def hash_of(image: Image.Image) -> str:
    return picture_hash(np.asarray(image.convert("RGB")))


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_saved_anew_is_near_and_another_picture_is_far() -> None:
    first = hash_of(PHOTO)
    anew = [
        Image.open(io.BytesIO(jpeg(PHOTO, 60))),
        PHOTO.resize((128, 128)),
        PHOTO.resize((500, 500)),
        ImageEnhance.Brightness(PHOTO).enhance(0.85),
    ]
    assert max(bits(first, hash_of(image)) for image in anew) <= 12
    others = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.astronaut()]
    assert min(bits(first, hash_of(Image.fromarray(other))) for other in others) > 80


def row(file: str, sha256: str, picture: int, face: int = 0, reason: str | None = None) -> dict:
    words = f"{picture:064x}"
    return {"file": file, "sha256": sha256, "picture_hash": words, "face": face, "reason": reason}


def test_the_index_finds_what_a_search_by_hand_finds() -> None:
    rng = np.random.default_rng(0)
    doubles = Doubles(Catalogue(), 10)
    kept: dict[str, int] = {}
    for i in range(3000):  # more than the index holds at first
        start = rng.choice(list(kept.values())) if i % 3 == 2 else int.from_bytes(rng.bytes(32), "big")
        flips = sum(1 << int(b) for b in rng.choice(256, i % 21, replace=False))
        picture = int(start) ^ flips
        near = {file: (other ^ picture).bit_count() for file, other in kept.items()}
        judged = doubles.judge(row(f"{i}", f"{i}", picture))
        if near and min(near.values()) <= 10:
            assert judged["reason"] == "near_duplicate"
            assert near[judged["repeats"]] == min(near.values())
        else:
            assert judged["reason"] is None
            kept[f"{i}"] = picture
    assert len(kept) < 2900


def test_all_faces_of_a_photo_share_its_fate() -> None:
    doubles = Doubles(Catalogue(), 4)
    first = [doubles.judge(row("a", "1", 0, face)) for face in (0, 1)]
    second = [doubles.judge(row("b", "2", 1, face)) for face in (0, 1)]
    assert [r["reason"] for r in first + second] == [None, None, "near_duplicate", "near_duplicate"]


def test_rejected_photos_are_no_originals() -> None:
    doubles = Doubles(Catalogue(), None)
    assert doubles.judge(row("a", "1", 0, reason="no_face"))["reason"] == "no_face"
    assert doubles.judge(row("b", "1", 0))["reason"] is None
    again = doubles.judge(row("c", "1", 0))
    assert (again["reason"], again["repeats"]) == ("duplicate", "b")


def test_near_duplicates_are_rejected_with_the_file_that_they_repeat(
    prepare_plainly, tmp_path: Path, as_bytes
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    mirrored = PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    (source / "a.png").write_bytes(as_bytes(PHOTO))
    (source / "b.png").write_bytes(as_bytes(mirrored))
    (source / "c smaller.jpg").write_bytes(jpeg(PHOTO.resize((200, 200)), 80))
    config = PrepareConfig(near_duplicate_bits=16, samples_per_shard=1, **ALL_TRAIN)
    manifest = prepare_plainly(source, config)
    (reject,) = pq.read_table(manifest.rejects_file).to_pylist()
    assert (reject["file"], reject["reason"]) == ("c smaller.jpg", "near_duplicate")
    assert reject["detail"].startswith("the same picture as a.png: ")
    assert manifest.samples["train"] == 2
    assert prepare_plainly(source, config) == manifest  # known from the journal, not found again

    (source / "d later.jpg").write_bytes(jpeg(mirrored, 70))  # of a photo of the earlier run
    assert prepare_plainly(source, config).rejects_by_reason == {"near_duplicate": 2}
    (source / "a.png").unlink()  # the copy takes its place
    manifest = prepare_plainly(source, config)
    assert (manifest.count_out, manifest.rejects) == (2, 1)
    assert verify_shards(manifest) == []


def test_without_the_setting_only_exact_copies_go(prepare_plainly, tmp_path: Path, as_bytes) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.png").write_bytes(as_bytes(PHOTO))
    (source / "b.jpg").write_bytes(jpeg(PHOTO, 90))
    assert prepare_plainly(source, PrepareConfig(**ALL_TRAIN)).count_out == 2
