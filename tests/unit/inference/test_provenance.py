"""What a picture says of itself: the same in PNG and JPEG, signed, and read back by `inspect_picture`."""

import io
import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.inference import (
    Dials,
    Personalizer,
    ProvenanceConfig,
    encode_jpeg,
    encode_png,
    inspect_picture,
    read_recipe,
    save_jpeg,
    save_png,
)
from components.inference.credentials import load_seal, read_manifest
from components.inference.provenance import recipe, with_recipe
from components.model import load_pipeline
from components.portraits.world import portrait
from tests.unit.inference.conftest import FEW

TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def facts(**changes):
    given = {
        "prompt": 'S* & "friends" <3',
        "seed": 7,
        "dials": Dials(),
        "adapter_hash": "ab",
        "base_hash": "cd",
    }
    return recipe(**(given | changes), keep_prompt=True)


@pytest.fixture
def picture():
    return Image.fromarray(portrait(0, 0).image_uint8)


@pytest.fixture(scope="module")
def seal(tmp_path_factory):
    return load_seal(tmp_path_factory.mktemp("keys") / "credentials")


@pytest.mark.parametrize(("save", "name"), [(save_png, "a.png"), (save_jpeg, "a.jpg")])
def test_png_and_jpeg_carry_the_same(save, name, picture, tmp_path):
    path = save(with_recipe(picture, facts()), tmp_path / name)
    assert read_recipe(path) == facts()
    found = inspect_picture(path)
    assert found.recipe == facts()
    assert found.source_type == TYPES + "trainedAlgorithmicMedia"
    assert found.credentials is None
    with Image.open(path) as image:
        assert image.info["xmp"].count(b"DigitalSourceType") == 1
        said = image.info.get("Comment") or image.getexif()[0x010E]
    assert said.startswith("AI-generated")


def test_a_picture_over_a_photo_is_a_composite(picture, tmp_path):
    path = save_png(with_recipe(picture, facts(dials=Dials(strength=0.5))), tmp_path / "a.png")
    assert inspect_picture(path).source_type == TYPES + "compositeWithTrainedAlgorithmicMedia"


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_signed_file_is_valid_and_a_changed_one_is_not(kind, picture, seal):
    encode, mime = {"png": (encode_png, "image/png"), "jpeg": (encode_jpeg, "image/jpeg")}[kind]
    data = encode(with_recipe(picture, facts(), seal))
    found = read_manifest(data, mime)
    assert found["state"] == "valid"
    assert found["problems"] == ["signingCredential.untrusted"]
    assert found["issuer"] == "PhotoVerse on this machine"
    assert found["source_type"] == TYPES + "trainedAlgorithmicMedia"
    changed = bytearray(data)
    changed[-300] ^= 1
    assert read_manifest(bytes(changed), mime)["state"] == "invalid"
    assert read_manifest(encode(with_recipe(Image.new("RGB", (64, 64)), facts())), mime) is None
    with Image.open(io.BytesIO(data)) as image:  # still a picture like any other
        assert image.size == picture.size
        assert json.loads(image.info["photoverse"]) == facts() if kind == "png" else True


def test_the_key_is_made_once_for_its_owner_alone(tmp_path, seal):
    folder = tmp_path / "keys"
    made = [threading.Thread(target=load_seal, args=(folder,)) for _ in range(4)]
    [thread.start() for thread in made]
    [thread.join() for thread in made]
    assert sorted(path.name for path in folder.iterdir()) == ["chain.pem", "key.pem"]
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    key = (folder / "key.pem").read_bytes()
    assert load_seal(folder).folder == folder
    assert (folder / "key.pem").read_bytes() == key != (seal.folder / "key.pem").read_bytes()
    assert list(tmp_path.iterdir()) == [folder]
    (folder / "key.pem").unlink()
    with pytest.raises(ValueError, match=r"no key\.pem in"):
        load_seal(folder)


def test_a_personalizer_marks_and_signs_what_it_draws(model_config, adapter_file, cards, seal, tmp_path):
    signing = Personalizer(
        load_pipeline(model_config),
        adapter_file,
        None,
        provenance=ProvenanceConfig(credentials=str(seal.folder)),
        model_version="models:/x/1",
    )
    unmarked = ProvenanceConfig(watermark_key=None, sign=False)
    plain = Personalizer(load_pipeline(model_config), adapter_file, None, provenance=unmarked)
    drawn = signing.generate(cards[:1], ["S* smiling"], [5], FEW)[0]
    found = inspect_picture(save_png(drawn, tmp_path / "a.png"))
    assert found.watermarked
    assert found.ours
    assert found.recipe["model"] == "models:/x/1"
    assert found.recipe["seed"] == 5
    assert "prompt" not in found.recipe
    assert found.credentials["state"] == "valid"
    bare = plain.generate(cards[:1], ["S* smiling"], [5], FEW)[0]
    found = inspect_picture(save_png(bare, tmp_path / "b.png"))
    assert not found.watermarked
    assert found.credentials is None
    assert np.abs(np.asarray(bare).astype(int) - np.asarray(drawn)).mean() < 8


def test_without_a_folder_each_process_has_a_key_of_its_own(model_config, adapter_file, cards, tmp_path):
    personalizer = Personalizer(load_pipeline(model_config), adapter_file, None)
    (drawn,) = personalizer.generate(cards[:1], ["S*"], [5], FEW)
    assert inspect_picture(save_png(drawn, tmp_path / "a.png")).credentials["state"] == "valid"
    assert load_seal(None) == load_seal(None)
    code = "from components.inference.credentials import load_seal; print(load_seal(None).folder)"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    other = Path(said.stdout.strip())
    assert other != load_seal(None).folder
    assert not other.parent.exists()  # gone with its process


def test_settings_keep_the_key_below_the_root_unless_they_say_where(tmp_path):
    assert ProvenanceConfig().below(tmp_path).key_folder == tmp_path / "credentials"
    assert ProvenanceConfig(credentials="/keys").below(tmp_path).key_folder == Path("/keys")


def test_the_mark_alone_tells_when_the_metadata_are_gone(picture, tmp_path):
    from components.inference import embed_watermark

    embed_watermark(picture).save(tmp_path / "stripped.jpg", quality=80)
    found = inspect_picture(tmp_path / "stripped.jpg")
    assert found.recipe is None
    assert found.ours
    picture.save(tmp_path / "photo.jpg")
    assert not inspect_picture(tmp_path / "photo.jpg").ours


def test_what_is_no_picture_is_said(tmp_path, picture, png_header):
    with pytest.raises(ValueError, match="no picture at"):
        inspect_picture(tmp_path / "none.png")
    files = {
        "text.png": b"no picture",
        "empty.png": b"",
        "cut.png": encode_png(picture)[:900],
        "bomb.png": png_header(9000, 9000),
        "huge.png": png_header(60000, 60000),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            inspect_picture(tmp_path / name)


def test_damaged_metadata_are_no_recipe(picture, tmp_path):
    picture.info |= {"photoverse": "{broken", "XML:com.adobe.xmp": "<!DOCTYPE x [<!ENTITY a 'b'>]>"}
    path = save_png(picture, tmp_path / "a.png")
    assert inspect_picture(path).recipe is None
    with pytest.raises(ValueError, match="no PhotoVerse recipe"):
        read_recipe(path)
