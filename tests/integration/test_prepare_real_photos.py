"""Real photographs through the real engines: Ray Data, CenterFace, ONNX Runtime, CLIP and VAE, WebDataset."""

import shutil
from pathlib import Path

import insightface
import numpy as np
import pytest
import skimage
from PIL import Image

from components.core import RuntimeConfig, ShardManifest
from components.face import FaceConfig, load_detector
from components.model import ModelConfig
from components.prepare import PrepareConfig, prepare
from components.prepare.engines import PlainEngine
from components.prepare.pipeline import prepare_with
from components.shards import FIELDS, ReaderConfig, ShardReader, check, load_split, verify_shards
from tests.factories import tiny_base

ASTRONAUT = Path(skimage.__file__).parent / "data/astronaut.png"
GROUP = Path(insightface.__file__).parent / "data/images/t1.jpg"
FACES = {"astronaut.png": 1, "t1.jpg": 6}
CONFIG = PrepareConfig(several_faces="all", validation_share=0.0, heldout_share=0.0, batch_size=1)
RUNTIME = RuntimeConfig(device="cpu", num_cpus=2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "photos"
    folder.mkdir()
    for path in (ASTRONAUT, GROUP):
        shutil.copy(path, folder)
    (folder / "not a photo ü.jpg").write_text("but a text")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig(base=str(tiny_base(tmp_path_factory.mktemp("base") / "base")))


def run(photos: Path, model: ModelConfig, out: Path, config: PrepareConfig = CONFIG) -> ShardManifest:
    return prepare(
        config=config, face=FaceConfig(), model=model, runtime=RUNTIME, source_folder=photos, folder=out
    )


@pytest.fixture(scope="module")
def manifest(photos: Path, model: ModelConfig, ray_local: None) -> ShardManifest:
    return run(photos, model, photos.parent / "out")


def test_seven_faces_are_found(manifest: ShardManifest) -> None:
    assert (manifest.count_in, manifest.count_out, manifest.rejects) == (3, 7, 1)
    assert manifest.rejects_by_reason == {"not_an_image": 1}
    files = [sample["meta.json"]["file"] for sample in load_split(manifest, "train")]
    assert {name: files.count(name) for name in FACES} == FACES


def test_every_sample_is_whole_and_comes_back_field_by_field(manifest: ShardManifest) -> None:
    assert verify_shards(manifest) == []
    samples = {sample["__key__"]: sample for sample in load_split(manifest, "train")}
    for limit in (0, 256):
        config = ReaderConfig(memory_limit_mb=limit)
        reader = ShardReader(manifest, "train", batch_size=7, seed=0, config=config)
        batch = next(reader.batches())
        assert sorted(batch["__key__"]) == sorted(samples)
        for row, key in enumerate(batch["__key__"]):
            check(samples[key])
            assert batch["meta.json"][row] == samples[key]["meta.json"]
            for field in FIELDS:
                np.testing.assert_array_equal(batch[field.name][row], samples[key][field.name])


def test_boxes_and_crops_are_those_of_the_photos(manifest: ShardManifest, photos: Path) -> None:
    """What the shards say about a face is what the detector says about the photo, and the crop shows it."""
    detector = load_detector(FaceConfig())
    samples = load_split(manifest, "train")
    for name in FACES:
        image = np.asarray(Image.open(photos / name).convert("RGB"))
        found = {round(float(face.bbox_xyxy[0])): face for face in detector(image)}
        for sample in (s for s in samples if s["meta.json"]["file"] == name):
            meta = sample["meta.json"]
            face = found.pop(round(meta["bbox_xyxy"][0]))
            np.testing.assert_allclose(meta["landmarks_xy"], face.landmarks_xy, atol=0.01)
            assert (meta["height"], meta["width"]) == image.shape[:2]
            on_face = sample["mask.png"] == 255
            x0, y0, x1, y1 = (round(v) for v in meta["bbox_xyxy"])
            # RGB, not BGR: mean colour of the crop's face is that of the photo's face.
            expected = image[y0:y1, x0:x1].reshape(-1, 3).mean(0)
            assert np.abs(sample["photo.png"][on_face].mean(0) - expected).max() < 30
            assert sample["photo.png"][on_face].mean(0)[0] > sample["photo.png"][on_face].mean(0)[2]
        assert not found


def test_the_contact_sheet_shows_all_seven(manifest: ShardManifest) -> None:
    sheet = np.asarray(Image.open(str(manifest.contact_sheet)))
    assert sheet.shape == (3 * 128, 7 * 128, 3)
    masks = sheet[128:256].reshape(128, 7, 128, 3)
    assert (masks.mean((0, 2, 3)) > 40).all()  # each of the seven masks shows a face of some size
    assert (masks[:, :, [0, -1]].mean((0, 2, 3)) < 60).all()  # that does not fill its crop


def test_a_second_run_does_no_work_and_starts_no_ray(
    manifest: ShardManifest, photos: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.prepare.engines.ray_session", None)
    assert run(photos, model, Path(manifest.folder)) == manifest


def test_a_plain_loop_writes_the_same_bytes(
    manifest: ShardManifest, photos: Path, model: ModelConfig
) -> None:
    plain = prepare_with(
        PlainEngine(), config=CONFIG, face=FaceConfig(), model=model, source_folder=photos,
        folder=photos.parent / "plain",
    )  # fmt: skip
    assert plain.shards == manifest.shards


@pytest.mark.slow
def test_more_workers_write_the_same_bytes(manifest: ShardManifest, photos: Path, model: ModelConfig) -> None:
    several = CONFIG.model_copy(update={"face_workers": 2, "encode_workers": 2})
    assert run(photos, model, photos.parent / "several", several).shards == manifest.shards
