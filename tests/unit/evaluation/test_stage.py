"""The whole stage on a tiny untrained base: real shards, real pipeline, real judges."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from components.core import EvaluationReport, RuntimeConfig, TrackingConfig
from components.evaluation import EvaluationConfig, evaluate
from components.evaluation.personalizer import PersonalizerGenerator
from components.face import FaceConfig
from components.inference import embed_watermark, read_recipe

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
    assert facts["schema_version"] == 2
    assert set(facts["judges"]) == {"identity", "second", "colour"}
    assert len(facts["pictures"]) == 6
    assert len({row["seed"] for row in facts["pictures"]}) == 6
    assert len(list(folder.glob("pictures-*/people/*.png"))) == 6
    assert len(list(folder.glob("pictures-*/base/*.png"))) == 3
    assert report.colour is not None
    through = facts["judges"]["colour"]["rows"]["all"]["through_vae"]
    assert through["people"] == 3
    assert -1 <= through["mean"] <= 1
    assert report.colour.through_vae == through["mean"]
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


@pytest.fixture(scope="module")
def rich(run, tmp_path_factory):
    """Everything that can be asked for: another m, prompts, curves, one from a start picture, CLIP."""
    folder = tmp_path_factory.mktemp("rich")
    asked = {
        "m_values": [1],
        "m_pictures": 1,
        "prompt_sets": ["attributes-v1"],
        "prompt_people": 2,
        "sweeps": {"sigma": [0.5, 1.0], "m": [1], "candidates": [3], "strength": [0.6]},
        "sweep_people": 2,
        "sweep_prompts": 1,
        "clip": "base",
        "pictures_per_reference": 2,
        "people": 2,
        "batch_size": 10,
        "bootstrap_samples": 100,
        "dials": {"num_inference_steps": 2, "guidance_scale": 2.0, "candidates": 2},
    }
    config = EvaluationConfig.parse(asked, source="test")
    return folder, config, run(folder, config)


def test_people_are_drawn_as_the_best_of_the_candidates_and_what_is_compared_alone(rich):
    folder, _, _ = rich
    pictures = folder.glob("pictures-*/people/*.png")
    counts = Counter(read_recipe(picture)["dials"]["candidates"] for picture in pictures)
    # 4 of the protocol and 8 prompts x 2 people; m, two sigmas, m again, strength; the sweep of candidates
    assert counts == {2: 4 + 16, 1: 2 + 8, 3: 2}
    assert "the best of 2 candidates by the identity network" in (folder / "report.html").read_text()


def test_everything_that_was_asked_for_is_in_the_report(rich):
    folder, _, report = rich
    facts = json.loads((folder / "report.json").read_text())
    assert [point["label"] for point in facts["protocol"]] == ["m = 1"]
    points = {dial: len(points) for dial, points in facts["curve"].items()}
    assert points == {"sigma": 2, "m": 1, "candidates": 1, "strength": 1}
    obedience = facts["obedience"]
    assert len(obedience["prompts"]) == 8
    assert obedience["obeyed"] is None  # this base ships no attribute reader, and the report says so
    assert obedience["reader"] is None
    assert report.obedience is None
    assert -1 <= obedience["clip_t"]["mean"] <= 1
    assert obedience["clip"] == "the two towers of base"
    assert facts["quality"]["features"].startswith("CLIP")
    assert facts["quality"]["kid"] is not None
    assert facts["quality"]["kid_base"] is None  # two pictures are too few
    assert facts["cost"]["pictures"] > 0
    assert facts["cost"]["peak_gb"] > 0.1
    assert all((folder / row["file"]).is_file() for row in facts["pictures"])
    assert all((folder / row["reference_file"]).is_file() for row in facts["pictures"])


def test_the_page_has_every_part(rich):
    folder, _, _ = rich
    page = (folder / "report.html").read_text()
    for words in ("Fewer words, one branch", "Does it still obey?", "Identity against obedience", "KID"):
        assert words in page
    assert "https://" not in page


def test_a_rich_evaluation_killed_anywhere_makes_no_picture_twice(rich, run, monkeypatch, tmp_path):
    """Killed after each second batch until it is through: the numbers are those of one that was not."""
    folder, config, report = rich
    whole, made, kills = PersonalizerGenerator.__call__, [], [0]

    def dying(self, shots):
        if len(made) >= 2 * (kills[0] + 1):
            kills[0] += 1
            raise KeyboardInterrupt
        made.append([shot.path.relative_to(tmp_path) for shot in shots])
        return whole(self, shots)

    monkeypatch.setattr(PersonalizerGenerator, "__call__", dying)
    again = None
    while again is None:
        try:
            again = run(tmp_path, config)
        except KeyboardInterrupt:
            continue
    files = [path for batch in made for path in batch]
    assert len(files) == len(set(files)) == len(list(folder.glob("pictures-*/*/*.png")))
    assert kills[0] >= 2
    assert again.identity == report.identity
    keys = ("obedience", "curve", "protocol", "quality", "judges", "copying")
    mine, theirs = (json.loads((place / "report.json").read_text()) for place in (tmp_path, folder))
    assert {key: mine[key] for key in keys} == {key: theirs[key] for key in keys}


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
    bare = embed_watermark(bare)  # what is judged is what users get: pictures with their mark
    difference = np.abs(np.asarray(bare).astype(int) - np.asarray(Image.open(path)).astype(int))
    assert difference.max() <= 2  # the batch that it was drawn in may turn the last bit


def test_no_held_out_people_is_said(run, small_run, tmp_path):
    empty = small_run[1].model_copy(update={"shards": (), "samples": {"train": 4}})
    with pytest.raises(ValueError, match="heldout"):
        run(tmp_path, manifest=empty)


def test_a_missing_recogniser_is_said(run, tmp_path):
    config = CONFIG.model_copy(update={"judge_onnx": "nowhere.onnx"})
    with pytest.raises(ValueError, match=r"nowhere\.onnx"):
        run(tmp_path, config)
