"""The whole stage on a tiny untrained base: real shards, real pipeline, real judges."""

import json

import numpy as np
import pytest
from PIL import Image

from components.core import EvaluationReport, RuntimeConfig, TrackingConfig
from components.evaluation import EvaluationConfig, evaluate
from components.evaluation.personalizer import PersonalizerGenerator
from components.face import FaceConfig

CONFIG = EvaluationConfig(
    pictures_per_reference=2,
    bootstrap_samples=100,
    dials={"num_inference_steps": 2, "guidance_scale": 2.0},
)


@pytest.fixture(scope="module")
def run(small_run):
    model, manifest, checkpoint = small_run

    def run(folder, config=CONFIG, **changed) -> EvaluationReport:
        return evaluate(
            config=config,
            model=model,
            face=FaceConfig(),
            runtime=RuntimeConfig(device="cpu"),
            tracking=TrackingConfig(),
            manifest=changed.get("manifest", manifest),
            checkpoint=checkpoint,
            folder=folder,
        )

    return run


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, run(folder)


def test_every_reference_gets_its_pictures_and_all_are_counted(evaluated):
    folder, report = evaluated
    assert (report.people, report.count_in, report.count_out) == (3, 3, 6)
    facts = json.loads((folder / "report.json").read_text())
    assert facts["schema_version"] == 1
    assert set(facts["judges"]) == {"identity", "second", "colour"}
    assert len(facts["pictures"]) == 6
    assert len({row["seed"] for row in facts["pictures"]}) == 6
    assert len(list(folder.glob("pictures-*/people/*.png"))) == 6
    assert len(list(folder.glob("pictures-*/base/*.png"))) == 3
    assert report.colour is not None
    assert 0 <= report.identity.no_face_rate <= 1


def test_the_page_needs_no_network_and_shows_all_faces(evaluated):
    folder, _ = evaluated
    page = (folder / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert 'name="viewport"' in page
    assert page.count('class="reference"') >= 3
    assert page.count("data:image/png;base64,") > 6


def test_a_picture_beside_the_page_shows_the_faces(evaluated):
    folder, _ = evaluated
    with Image.open(folder / "faces.png") as image:
        assert min(image.size) >= 128


def test_pictures_carry_what_made_them(evaluated):
    folder, _ = evaluated
    with Image.open(next(folder.glob("pictures-*/people/*.png"))) as image:
        recipe = json.loads(image.info["photoverse"])
    assert recipe["ai_generated"] is True
    assert recipe["dials"]["num_inference_steps"] == 2


def test_the_same_evaluation_twice_is_the_same_and_makes_no_picture_again(evaluated, run, monkeypatch):
    folder, report = evaluated
    before = (folder / "report.json").read_text()
    monkeypatch.setattr(PersonalizerGenerator, "__call__", lambda *a: pytest.fail("a picture was made again"))
    assert run(folder) == report
    assert (folder / "report.json").read_text() == before


def test_other_dials_make_other_pictures_in_another_folder(evaluated, run):
    folder, _ = evaluated
    other = CONFIG.model_copy(update={"dials": CONFIG.dials.model_copy(update={"sigma": 0.5})})
    run(folder, other)
    assert len(list(folder.glob("pictures-*"))) == 2


def test_the_base_alone_is_the_bare_pipeline(evaluated, small_run):
    import torch

    from components.model import load_pipeline

    folder, _ = evaluated
    path = next(folder.glob("pictures-*/base/*.png"))
    pipe = load_pipeline(small_run[0])
    bare = pipe(
        CONFIG.base_prompt,
        negative_prompt="",
        guidance_scale=2.0,
        num_inference_steps=2,
        generator=torch.Generator("cpu").manual_seed(int(path.stem)),
    ).images[0]
    difference = np.abs(np.asarray(bare).astype(int) - np.asarray(Image.open(path)).astype(int))
    assert difference.max() <= 1  # the batch that it was drawn in may turn the last bit


def test_no_held_out_people_is_said(run, small_run, tmp_path):
    empty = small_run[1].model_copy(update={"shards": (), "samples": {"train": 4}})
    with pytest.raises(ValueError, match="heldout"):
        run(tmp_path, manifest=empty)


def test_a_missing_recogniser_is_said(run, tmp_path):
    config = CONFIG.model_copy(update={"judge_onnx": "nowhere.onnx"})
    with pytest.raises(ValueError, match=r"nowhere\.onnx"):
        run(tmp_path, config)
