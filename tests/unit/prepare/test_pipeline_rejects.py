"""Photos that cannot be used end in the rejects with a reason; wrong settings are told before any work."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.prepare import PrepareConfig

ALL_TRAIN = {"validation_share": 0.0, "heldout_share": 0.0}


def rejects(out: Path) -> dict[str, str]:
    return {row["file"]: row["reason"] for row in pq.read_table(out / "rejects.parquet").to_pylist()}


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
