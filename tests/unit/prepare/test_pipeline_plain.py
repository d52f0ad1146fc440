"""The pipeline's promises, with the real networks' code and a plain loop where Ray Data stands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.core import ShardManifest, sha256_file, sha256_folder
from components.prepare import PrepareConfig
from components.shards import load_split, verify_shards

ALL_TRAIN = {"validation_share": 0.0, "heldout_share": 0.0}


def tars(out: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(out.glob("*.tar"))}


def rejects(out: Path) -> dict[str, str]:
    return {row["file"]: row["reason"] for row in pq.read_table(out / "rejects.parquet").to_pylist()}


def test_samples_hold_what_the_schema_says(prepare_plainly, add_photos, tmp_path: Path) -> None:
    manifest = prepare_plainly(add_photos(3), PrepareConfig(**ALL_TRAIN))
    assert verify_shards(manifest) == []
    assert (manifest.count_in, manifest.count_out, manifest.rejects) == (3, 3, 0)
    assert manifest.samples == {"train": 3, "validation": 0, "heldout": 0}
    samples = load_split(manifest, "train")
    assert [s["__key__"] for s in samples] == sorted(s["__key__"] for s in samples)
    for sample in samples:
        assert sample["features.npy"].shape == manifest.feature_shape
        mean_std = sample["latents.npy"]
        assert (mean_std.shape[0] // 2, *mean_std.shape[1:]) == manifest.latent_shape
        meta = sample["meta.json"]
        assert sample["__key__"] == f"{meta['sha256'][:16]}-0"
        assert (meta["width"], meta["height"]) == (160, 160)
        assert meta["sha256"] == sha256_file(tmp_path / "photos" / meta["file"])
        x0, y0, x1, y1 = meta["bbox_xyxy"]
        for x, y in meta["landmarks_xy"]:
            assert x0 <= x <= x1
            assert y0 <= y <= y1


def test_what_is_stored_follows_from_what_is_stored(prepare_plainly, add_photos, model) -> None:
    """Features, latents and masking are recomputed from the stored pictures by other code."""
    import torch

    from components.model import load_extractor, load_vae

    (sample,) = load_split(prepare_plainly(add_photos(1), PrepareConfig(**ALL_TRAIN)), "train")
    extractor, vae = load_extractor(model), load_vae(model)
    outside = sample["mask.png"] == 0
    assert 0.2 < outside.mean() < 0.9
    assert (sample["photo.png"][outside] == extractor.fill_rgb_uint8).all()
    features = extractor(extractor.preprocess(sample["photo.png"][None]))[0].numpy()
    np.testing.assert_allclose(sample["features.npy"], features, atol=2e-3, rtol=2e-3)
    target = torch.from_numpy(sample["target.png"].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.inference_mode():
        latent = vae.encode(target).latent_dist
    expected = torch.cat([latent.mean, latent.std], dim=1)[0].numpy()
    np.testing.assert_allclose(sample["latents.npy"], expected, atol=2e-3, rtol=2e-3)


def test_inference_sees_the_very_crop_that_was_stored(prepare_plainly, add_photos, model, head) -> None:
    from components.face import FaceConfig, decode_photo, identity_crop, load_detector, load_masker
    from components.model import load_extractor

    source = add_photos(1)
    (sample,) = load_split(prepare_plainly(source, PrepareConfig(**ALL_TRAIN)), "train")
    photo = decode_photo((source / "0000.png").read_bytes(), 10**6)
    (face,) = load_detector(FaceConfig())(photo)
    extractor, masker = load_extractor(model), load_masker(FaceConfig())
    crop = identity_crop(photo, face, masker, size=extractor.size, fill_rgb=extractor.fill_rgb_uint8)
    np.testing.assert_array_equal(sample["photo.png"], crop)


def test_target_landmarks_lie_on_the_face_of_the_target(prepare_plainly, add_photos) -> None:
    from components.face import FaceConfig, load_detector

    (sample,) = load_split(
        prepare_plainly(add_photos(1), PrepareConfig(target_expand=1.6, **ALL_TRAIN)), "train"
    )
    (face,) = load_detector(FaceConfig())(sample["target.png"])
    np.testing.assert_allclose(sample["meta.json"]["target_landmarks_xy"], face.landmarks_xy, atol=3)


def test_a_second_run_does_nothing(prepare_plainly, add_photos, tmp_path: Path, monkeypatch) -> None:
    source, config = add_photos(3), PrepareConfig(**ALL_TRAIN)
    first = prepare_plainly(source, config)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}

    def never(*args, **kwargs):
        raise AssertionError("work was done again")

    monkeypatch.setattr("components.prepare.stages.FaceStage.__init__", never)
    assert prepare_plainly(source, config) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == times


def test_a_touched_photo_is_not_done_again(prepare_plainly, add_photos, monkeypatch) -> None:
    source, config = add_photos(2), PrepareConfig(**ALL_TRAIN)
    first = prepare_plainly(source, config)
    (source / "0000.png").touch()
    monkeypatch.setattr("components.prepare.stages.FaceStage.__init__", None)
    assert prepare_plainly(source, config) == first


@pytest.mark.parametrize("stop_after", [0, 1, 4, 5, 9])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    prepare_plainly, add_photos, tmp_path: Path, stop_after: int
) -> None:
    source = add_photos(10)
    (source / "0003.png").write_bytes(b"no image")
    config = PrepareConfig(samples_per_shard=4, batch_size=3, **ALL_TRAIN)
    whole = prepare_plainly(source, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        prepare_plainly(source, config, tmp_path / "killed", stop_after=stop_after)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.tar")}
    again = prepare_plainly(source, config, tmp_path / "killed")
    assert tars(tmp_path / "killed") == tars(tmp_path / "whole")
    assert len(tars(tmp_path / "whole")) == 3
    assert again.fingerprint == whole.fingerprint
    assert rejects(tmp_path / "killed") == {"0003.png": "not_an_image"}
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.tar")}
    assert kept.items() <= now.items()  # a finished shard is never written again


def test_new_photos_cost_only_themselves(prepare_plainly, add_photos, tmp_path: Path) -> None:
    config = PrepareConfig(samples_per_shard=4, **ALL_TRAIN)
    prepare_plainly(add_photos(6), config)
    before = tars(tmp_path / "out")
    manifest = prepare_plainly(add_photos(3, first=6), config)
    after = tars(tmp_path / "out")
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert (manifest.count_in, manifest.count_out) == (9, 9)
    assert verify_shards(manifest) == []


def test_a_changed_photo_and_a_removed_one(
    prepare_plainly, add_photos, tmp_path: Path, head, as_bytes
) -> None:
    source, config = add_photos(9), PrepareConfig(samples_per_shard=3, **ALL_TRAIN)
    prepare_plainly(source, config)
    before = tars(tmp_path / "out")
    (source / "0004.png").write_bytes(as_bytes(head[:, ::-1]))
    (source / "0008.png").unlink()
    manifest = prepare_plainly(source, config)
    after = tars(tmp_path / "out")
    assert after["train-000000.tar"] == before["train-000000.tar"]
    assert (manifest.count_in, manifest.count_out) == (8, 8)
    assert verify_shards(manifest) == []
    files = {s["meta.json"]["file"] for s in load_split(manifest, "train")}
    assert files == {path.name for path in source.iterdir()}


def test_a_double_takes_the_place_of_a_photo_that_is_gone(
    prepare_plainly, add_photos, tmp_path: Path
) -> None:
    source, config = add_photos(3), PrepareConfig(samples_per_shard=1, **ALL_TRAIN)
    (source / "copy.png").write_bytes((source / "0001.png").read_bytes())
    assert prepare_plainly(source, config).rejects_by_reason == {"duplicate": 1}
    (source / "0001.png").unlink()
    manifest = prepare_plainly(source, config)
    assert (manifest.count_in, manifest.count_out, manifest.rejects) == (3, 3, 0)
    assert verify_shards(manifest) == []


def test_a_damaged_shard_is_made_again(prepare_plainly, add_photos, tmp_path: Path) -> None:
    source, config = add_photos(6), PrepareConfig(samples_per_shard=3, **ALL_TRAIN)
    prepare_plainly(source, config)
    before = tars(tmp_path / "out")
    path = tmp_path / "out" / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    prepare_plainly(source, config)
    assert tars(tmp_path / "out") == before


def test_other_settings_make_other_samples(prepare_plainly, add_photos, tmp_path: Path) -> None:
    source = add_photos(2)
    first = prepare_plainly(source, PrepareConfig(**ALL_TRAIN))
    second = prepare_plainly(source, PrepareConfig(identity_expand=1.5, **ALL_TRAIN))
    assert first.shards[0].sha256 != second.shards[0].sha256
    assert len(list((tmp_path / "out").glob("*.tar"))) == 1
    faster = prepare_plainly(source, PrepareConfig(identity_expand=1.5, face_workers=2, **ALL_TRAIN))
    assert faster == second


def test_other_labels_are_not_lost(prepare_plainly, add_photos) -> None:
    source, config = add_photos(1), PrepareConfig()
    for person in ("ann", "eve"):
        (source / "metadata.csv").write_text(f"file,identity,split\n0000.png,{person},train\n")
        (sample,) = load_split(prepare_plainly(source, config), "train")
        assert sample["meta.json"]["person"] == person


def test_every_bad_photo_ends_in_the_rejects(
    prepare_plainly, add_photos, tmp_path: Path, head, as_bytes, png_header
) -> None:
    source = add_photos(2)
    png = as_bytes(head)
    small_face = np.full((200, 200, 3), 120, np.uint8)
    small_face[60:164, 60:164] = np.asarray(Image.fromarray(head).resize((104, 104)))
    bad = {
        "empty.png": (b"", "empty_file"),
        "text.jpg": (b"I am no picture", "not_an_image"),
        "cut.png": (png[: len(png) // 2], "damaged_image"),
        "grey.png": (as_bytes(np.full((200, 200, 3), 127, np.uint8)), "no_face"),
        "tiny face ü.png": (as_bytes(small_face), "tiny_face"),
        "bomb.png": (png_header(30_000, 30_000), "too_many_pixels"),
        "copy of 0000.png": ((source / "0000.png").read_bytes(), "duplicate"),
    }
    for name, (data, _) in bad.items():
        (source / name).write_bytes(data)
    config = PrepareConfig(max_reject_share=0.9, min_face_px=45, **ALL_TRAIN)
    manifest = prepare_plainly(source, config)
    assert rejects(tmp_path / "out") == {name: reason for name, (_, reason) in bad.items()}
    assert manifest.count_in == manifest.count_out + manifest.rejects == 9
    assert sum(manifest.rejects_by_reason.values()) == manifest.rejects == 7
    details = {r["file"]: r["detail"] for r in pq.read_table(manifest.rejects_file).to_pylist()}
    assert details["copy of 0000.png"] == "the same bytes as 0000.png"
    assert "900000000 pixels" in details["bomb.png"]
    assert "at least 45" in details["tiny face ü.png"]


def test_photos_that_a_table_names_and_the_folder_lacks(prepare_plainly, add_photos, tmp_path: Path) -> None:
    source = add_photos(1)
    (tmp_path / "secret.png").write_bytes((source / "0000.png").read_bytes())
    (source / "metadata.csv").write_text(
        "file,split\n0000.png,train\nabsent.png,train\n../secret.png,train\n", encoding="utf-8"
    )
    manifest = prepare_plainly(source, PrepareConfig(max_reject_share=1.0))
    assert rejects(tmp_path / "out") == {"absent.png": "missing_file", "../secret.png": "outside_folder"}
    assert manifest.count_out == 1


def test_too_many_rejects_are_an_error_that_says_why(prepare_plainly, add_photos, tmp_path: Path) -> None:
    source = add_photos(1)
    for i in range(2):
        (source / f"bad{i}.jpg").write_bytes(b"text %d" % i)
    with pytest.raises(ValueError, match=r"2 of 3 photos were rejected \(not_an_image 2\); at most 50%"):
        prepare_plainly(source, PrepareConfig(**ALL_TRAIN))
    assert len(rejects(tmp_path / "out")) == 2
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert prepare_plainly(source, PrepareConfig(max_reject_share=0.7, **ALL_TRAIN)).rejects == 2


def test_a_fault_of_ours_on_one_photo_is_a_reject(
    prepare_plainly, add_photos, tmp_path: Path, monkeypatch
) -> None:
    from components.prepare import stages

    real, count = stages.decode_photo, iter(range(100))

    def sometimes(data, limit):
        if next(count) == 1:
            raise RuntimeError("a fault of ours")
        return real(data, limit)

    monkeypatch.setattr(stages, "decode_photo", sometimes)
    manifest = prepare_plainly(add_photos(3), PrepareConfig(**ALL_TRAIN))
    assert rejects(tmp_path / "out") == {"0001.png": "internal_error"}
    assert manifest.count_out == 2


def test_all_faces_of_a_photo(prepare_plainly, tmp_path: Path, head, as_bytes) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    pair = np.concatenate(
        [head, np.asarray(Image.fromarray(head).resize((128, 128)).crop((0, 0, 128, 160)))], axis=1
    )
    (source / "pair.png").write_bytes(as_bytes(pair))
    (source / "metadata.csv").write_text("file,identity,split\npair.png,ann,train\n")
    both = prepare_plainly(source, PrepareConfig(several_faces="all"))
    samples = load_split(both, "train")
    assert [s["meta.json"]["person"] for s in samples] == ["ann", "ann#1"]
    assert samples[0]["__key__"][:-2] == samples[1]["__key__"][:-2]
    assert (both.count_in, both.count_out, both.rejects) == (1, 2, 0)
    assert prepare_plainly(source, PrepareConfig(several_faces="largest")).count_out == 1
    with pytest.raises(ValueError, match="several_faces 1"):
        prepare_plainly(source, PrepareConfig(several_faces="reject"))


def test_latents_can_be_left_to_the_trainer(prepare_plainly, add_photos) -> None:
    (sample,) = load_split(
        prepare_plainly(add_photos(1), PrepareConfig(encode_latents=False, **ALL_TRAIN)), "train"
    )
    assert "latents.npy" not in sample


def test_sizes_are_settings(prepare_plainly, add_photos) -> None:
    config = PrepareConfig(resolution=96, identity_size=48, **ALL_TRAIN)
    manifest = prepare_plainly(add_photos(1), config)
    (sample,) = load_split(manifest, "train")
    assert sample["photo.png"].shape == (48, 48, 3)
    assert sample["target.png"].shape == (96, 96, 3)
    assert manifest.latent_shape == (8, 24, 24)
    with pytest.raises(ValueError, match="multiple of 4"):
        prepare_plainly(add_photos(1), PrepareConfig(resolution=90))


def test_the_contact_sheet_shows_crops_masks_and_targets(prepare_plainly, add_photos) -> None:
    manifest = prepare_plainly(add_photos(10), PrepareConfig(**ALL_TRAIN))
    sheet = np.asarray(Image.open(str(manifest.contact_sheet)))
    assert sheet.shape == (2 * 3 * 128, 8 * 128, 3)
    masks = sheet[128:256]
    assert set(np.unique(masks)) == {0, 255}


def test_licences_are_counted(prepare_plainly, add_photos) -> None:
    source = add_photos(3)
    (source / "metadata.csv").write_text(
        "file,split,licence\n0000.png,train,CC0-1.0\n0001.png,train,CC0-1.0\n0002.png,heldout,\n"
    )
    assert prepare_plainly(source).licences == {"CC0-1.0": 2, "not stated": 1}


def test_a_missing_weight_file_is_found_before_any_work(tmp_path: Path, model, add_photos) -> None:
    from components.face import FaceConfig
    from components.model import ModelConfig
    from components.prepare.spec import resolve

    for part, message in (
        ("image_encoder/model.safetensors", "no weights"),
        ("vae/diffusion_pytorch_model.safetensors", "no weights"),
        ("vae/config.json", "not complete"),
        ("face_pack/identity.onnx", None),
    ):
        base = tmp_path / part.replace("/", "_")
        shutil.copytree(model.base, base)
        (base / part).unlink()
        if message is None:
            (base / "face_pack" / "judge.onnx").unlink()
        with pytest.raises(ValueError, match=message or "no identity network"):
            resolve(PrepareConfig(), FaceConfig(), ModelConfig(base=str(base)))
    with pytest.raises(ValueError, match="not complete"):
        resolve(PrepareConfig(), FaceConfig(), ModelConfig(base=str(tmp_path / "nowhere")))


def test_the_manifest_is_a_record_that_loads(prepare_plainly, add_photos, tmp_path: Path) -> None:
    manifest = prepare_plainly(add_photos(1), PrepareConfig(**ALL_TRAIN))
    assert ShardManifest.load(tmp_path / "out" / "manifest.json") == manifest
    entry = json.loads((tmp_path / "out" / "journal" / "train-000000.json").read_text())
    assert entry["photos"][0]["file"] == "0000.png"
    assert sha256_folder(tmp_path / "out" / "journal")
