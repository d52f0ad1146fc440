"""Several sources, masks that a set brings, and filters of quality, through the plain pipeline."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

from components.face import FaceConfig
from components.prepare import PrepareConfig
from components.shards import load_split, verify_shards
from tests.unit.prepare import layouts

ALL_TRAIN = {"validation_share": 0.0, "heldout_share": 0.0}


@pytest.fixture
def photo(head):
    """Returns a function that gives the bytes of the i-th photo of the head, all different."""

    def make(i: int) -> bytes:
        picture = np.roll(head, i % 7, axis=1).copy()
        picture[0, :3] = i
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return buffer.getvalue()

    return make


def test_public_sets_become_one_set_of_samples(prepare_plainly, tmp_path: Path, photo, as_bytes) -> None:
    sources = (
        {"kind": "fairface", "path": str(layouts.fairface(tmp_path / "f", photo))},
        {
            "kind": "celebahq",
            "path": str(layouts.celebahq(tmp_path / "c", lambda i: photo(i + 10), as_bytes)),
        },
        {"kind": "ffhq", "path": str(layouts.ffhq(tmp_path / "g", lambda i: photo(i + 20)))},
        {"kind": "parquet", "path": str(layouts.parquet(tmp_path / "p", lambda i: photo(i + 30)))},
    )
    config = PrepareConfig(sources=sources, samples_per_shard=6, batch_size=4, **ALL_TRAIN)
    manifest = prepare_plainly(None, config)
    assert verify_shards(manifest) == []
    assert (manifest.count_in, manifest.count_out, manifest.rejects) == (17, 17, 0)
    assert manifest.samples == {"train": 13, "validation": 0, "heldout": 4}
    assert manifest.licences == {
        "Attribution-NonCommercial License": 2,
        "CC-BY-4.0": 5,
        "CelebAMask-HQ: non-commercial research and education": 3,
        "Public Domain Mark": 1,
        "not stated": 6,
    }
    samples = load_split(manifest, "train", ("mask.png",))
    metas = {sample["meta.json"]["file"]: sample["meta.json"] for sample in samples}
    assert metas["fairface/train/1.jpg"]["group"] == "Yellow"
    assert metas["celebahq/CelebA-HQ-img/0.jpg"]["person"] == "celebahq/2880"
    assert prepare_plainly(None, config) == manifest
    # A source more costs only itself.
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.png").write_bytes(photo(50))
    more = PrepareConfig(
        sources=(*sources, {"path": str(tmp_path / "more")}), samples_per_shard=6, batch_size=4, **ALL_TRAIN
    )
    again = prepare_plainly(None, more)
    assert {shard.sha256 for shard in manifest.shards} < {shard.sha256 for shard in again.shards}
    assert again.count_out == 18


def test_masks_of_the_set_take_the_place_of_ours(prepare_plainly, tmp_path: Path, photo, as_bytes) -> None:
    source = {"kind": "celebahq", "path": str(layouts.celebahq(tmp_path / "c", photo, as_bytes))}
    config = PrepareConfig(sources=(source,), **ALL_TRAIN)

    def masks(face: FaceConfig, out: str) -> dict[str, np.ndarray]:
        samples = load_split(prepare_plainly(None, config, tmp_path / out, face=face), "train", ("mask.png",))
        return {sample["meta.json"]["file"].rsplit("/", 1)[1]: sample for sample in samples}

    plain = masks(FaceConfig(), "plain")
    meta, mask = plain["0.jpg"]["meta.json"], plain["0.jpg"]["mask.png"]
    side = mask.shape[0]
    x0, y0, x1, y1 = meta["bbox_xyxy"]
    expand = max(x1 - x0, y1 - y0) * config.identity_expand / side
    # Skin was the left half of the photo, without hair in its upper quarter: where that is in the crop.
    column = round((meta["width"] / 2 - (x0 + x1) / 2) / expand + side / 2)
    row = round((meta["height"] / 4 - (y0 + y1) / 2) / expand + side / 2)
    assert (mask[max(row, 0) + 2 :, : column - 2] == 255).all()
    assert (mask[:, column + 2 :] == 0).all()
    hairy = masks(FaceConfig(mask_hair=True), "hairy")
    assert (hairy["0.jpg"]["mask.png"] == 255).sum() >= (mask == 255).sum()
    assert (hairy["1.jpg"]["mask.png"] == 255).sum() > (plain["1.jpg"]["mask.png"] == 255).sum()  # ellipses


def test_a_changed_mask_renews_its_sample_and_a_touched_one_does_not(
    prepare_plainly, tmp_path: Path, photo, as_bytes, monkeypatch
) -> None:
    folder = layouts.celebahq(tmp_path / "c", photo, as_bytes)
    config = PrepareConfig(
        sources=({"kind": "celebahq", "path": str(folder)},), samples_per_shard=1, **ALL_TRAIN
    )
    before = prepare_plainly(None, config)
    (mask, *_) = sorted(folder.glob("CelebAMask-HQ-mask-anno/**/*_skin.png"))
    with monkeypatch.context() as patch:
        patch.setattr("components.prepare.stages.FaceStage.__init__", None)
        mask.touch()
        assert prepare_plainly(None, config) == before
    mask.write_bytes(as_bytes(255 - np.asarray(Image.open(mask))))
    after = prepare_plainly(None, config)
    assert len({s.sha256 for s in before.shards} - {s.sha256 for s in after.shards}) == 1
    assert len(before.shards) == len(after.shards) == 3


def test_a_broken_mask_is_a_reject_and_no_other_mask(
    prepare_plainly, tmp_path: Path, photo, as_bytes
) -> None:
    folder = layouts.celebahq(tmp_path / "c", photo, as_bytes)
    (folder / "CelebAMask-HQ-mask-anno/0/00000_skin.png").write_bytes(b"no picture")
    source = {"kind": "celebahq", "path": str(folder)}
    manifest = prepare_plainly(None, PrepareConfig(sources=(source,), **ALL_TRAIN))
    (reject,) = pq.read_table(manifest.rejects_file).to_pylist()
    assert (reject["file"], reject["reason"]) == ("celebahq/CelebA-HQ-img/0.jpg", "not_an_image")
    assert reject["detail"].startswith("00000_skin.png: ")


def test_blurred_and_turned_faces_are_rejected_with_what_was_measured(
    prepare_plainly, tmp_path: Path, head, as_bytes
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    sharp = Image.fromarray(head)
    (source / "sharp.png").write_bytes(as_bytes(sharp))
    (source / "blurred.png").write_bytes(as_bytes(sharp.filter(ImageFilter.GaussianBlur(4))))
    (source / "rolled.png").write_bytes(as_bytes(sharp.rotate(35, Image.Resampling.BICUBIC)))
    limits = {"min_sharpness": 30.0, "max_roll_degrees": 20.0, "max_yaw_degrees": 60.0}
    manifest = prepare_plainly(source, PrepareConfig(max_reject_share=0.9, **limits, **ALL_TRAIN))
    rejects = {row["file"]: row for row in pq.read_table(manifest.rejects_file).to_pylist()}
    assert {file: row["reason"] for file, row in rejects.items()} == {
        "blurred.png": "blurred_face",
        "rolled.png": "turned_face",
    }
    assert rejects["rolled.png"]["detail"].endswith("degrees, at most 20")
    assert "at least 30" in rejects["blurred.png"]["detail"]
    (sample,) = load_split(manifest, "train", ())
    assert sample["meta.json"]["sharpness"] > 30
    assert abs(sample["meta.json"]["roll_degrees"]) < 20


def test_faces_by_cuda_are_asked_for_and_a_machine_without_it_says_so(tmp_path: Path, model) -> None:
    from components.prepare.sources import Library
    from components.prepare.spec import resolve
    from components.prepare.stages import FaceStage

    config = PrepareConfig(face_gpus=0.5)
    spec = resolve(config, FaceConfig(), model)
    assert spec.work == resolve(PrepareConfig(), FaceConfig(), model).work
    with pytest.raises(ValueError, match="needs onnxruntime-gpu"):
        FaceStage(spec, Library(config, tmp_path))


def test_of_several_faces_the_good_ones_are_kept(prepare_plainly, tmp_path: Path, head, as_bytes) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    small = np.asarray(Image.fromarray(head).resize((128, 128)).crop((0, 0, 128, 160)))
    blurred = np.asarray(Image.fromarray(head).filter(ImageFilter.GaussianBlur(4)))
    (source / "pair.png").write_bytes(as_bytes(np.concatenate([blurred, small], axis=1)))
    config = PrepareConfig(several_faces="all", min_sharpness=30.0, **ALL_TRAIN)
    (sample,) = load_split(prepare_plainly(source, config), "train", ())
    assert sample["__key__"].endswith("-1")
    assert sample["meta.json"]["person"] == "pair.png#1"


def test_the_report_shows_counts_balance_rejects_and_samples(
    prepare_plainly, tmp_path: Path, photo, as_bytes, head
) -> None:
    folder = layouts.fairface(tmp_path / "f", photo)
    (folder / "train" / "2.jpg").write_bytes(b"<script>alert(1)</script>")
    (folder / "train" / "3.jpg").write_bytes((folder / "train" / "1.jpg").read_bytes())
    source = {"kind": "fairface", "path": str(folder)}
    manifest = prepare_plainly(None, PrepareConfig(sources=(source,), **ALL_TRAIN))
    page = (tmp_path / "out" / "prepare.html").read_text(encoding="utf-8")
    for words in (
        "<b>5</b>photos", "<b>3</b>samples", "duplicate: 1", "not_an_image: 1", "the same bytes as",
        "<td>CC-BY-4.0</td><td>3</td>", "<td>fairface</td><td>3</td>", "<td>Yellow</td>",
        manifest.fingerprint,
    ):  # fmt: skip
        assert words in page, words
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "src=" in page
    assert page.count("data:image/jpeg;base64,") == 3 * 3 + 2  # samples; the double and what it repeats
    (tmp_path / "out" / "prepare.html").unlink()
    prepare_plainly(None, PrepareConfig(sources=(source,), **ALL_TRAIN))
    assert (tmp_path / "out" / "prepare.html").is_file()
