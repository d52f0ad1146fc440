"""What the pipeline writes, with the real networks' code and a plain loop where Ray Data stands."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.core import ShardManifest, sha256_file, sha256_folder
from components.prepare import PrepareConfig
from components.shards import load_split, verify_shards

ALL_TRAIN = {"validation_share": 0.0, "heldout_share": 0.0}


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


def test_the_manifest_is_a_record_that_loads(prepare_plainly, add_photos, tmp_path: Path) -> None:
    manifest = prepare_plainly(add_photos(1), PrepareConfig(**ALL_TRAIN))
    assert ShardManifest.load(tmp_path / "out" / "manifest.json") == manifest
    entry = json.loads((tmp_path / "out" / "journal" / "train-000000.json").read_text())
    assert entry["photos"][0]["file"] == "0000.png"
    assert sha256_folder(tmp_path / "out" / "journal")
