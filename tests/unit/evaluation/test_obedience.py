"""Prompt sets, the base's attribute reader, and series whose obedience is known because it was planted."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from components.evaluation.config import EvaluationConfig, SweptDial, swept
from components.evaluation.generate import make_missing
from components.evaluation.looks import Looker, judge_curve, judge_obedience, met_wishes
from components.evaluation.obedience import load_reader
from components.evaluation.prompts import FOLDER, Prompt, load_prompt_set
from components.evaluation.series import few_people, plan_series
from components.inference import Dials
from components.portraits.world import portrait

BASE = Path(__file__).parents[3] / "components" / "portraits" / "base"


@pytest.fixture(scope="module")
def reader():
    return load_reader(BASE)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_set_is_valid_and_carries_its_version(file):
    found = load_prompt_set(file.stem)
    assert file.stem.endswith(f"-v{found.version}")
    assert len({prompt.text for prompt in found.prompts}) == len(found.prompts) == 8
    assert all("S*" not in prompt.plain for prompt in found.prompts)


def test_the_bases_own_reader_can_check_the_attribute_set(reader):
    for prompt in load_prompt_set("attributes-v1").prompts:
        assert prompt.expects
        reader.check(prompt.expects)


def test_a_wish_that_cannot_be_read_is_named(reader):
    with pytest.raises(ValueError, match="background: plaid"):
        reader.check({"background": "plaid"})
    with pytest.raises(ValueError, match="shoes: red"):
        reader.check({"shoes": "red"})


def test_sets_of_ones_own_are_read_and_faults_are_said(tmp_path):
    own = tmp_path / "mine-v3.yaml"
    own.write_text("version: 3\nprompts: [{text: 'S* on the moon'}]")
    assert load_prompt_set(str(own)).prompts[0].plain == "a person on the moon"
    own.write_text("version: 4\nprompts: [{text: 'S* on the moon'}]")
    with pytest.raises(ValueError, match="must end in -v4"):
        load_prompt_set(str(own))
    own.write_text("version: 3\nprompts: [{text: 'the moon'}]")
    with pytest.raises(ValueError, match="place of the person"):
        load_prompt_set(str(own))
    with pytest.raises(ValueError, match="attributes-v1"):
        load_prompt_set("no-such-set")


def test_the_reader_reads_drawn_people(reader):
    drawn = [portrait(800_000 + person, view, 64) for person in range(12) for view in range(2)]
    read = reader([one.image_uint8 for one in drawn])
    for name in ("background", "glasses"):
        right = [row[name] == str(one.attributes[name]) for row, one in zip(read, drawn, strict=True)]
        assert np.mean(right) >= 0.9, name


def test_wishes_are_met_one_by_one():
    prompt = Prompt(text="S*", expects={"background": "blue", "smile": "True"})
    met = met_wishes({"background": "blue", "smile": "False", "hat": "True"}, prompt)
    assert met == {"background": True, "smile": False}
    assert met_wishes({}, prompt) == {}


class Obliging:
    """Draws the person on blue as asked where sigma is low, else on red; nobody of them at sigma 0.

    The base model alone always obeys.
    """

    def __call__(self, shots):
        return [Image.fromarray(self.picture(shot)) for shot in shots]

    def picture(self, shot):
        person = int(shot.reference.person[1:]) if shot.reference else 77
        obeys = shot.reference is None or shot.dials.sigma <= 0.5
        identity = 800_000 + (person if shot.dials.sigma > 0 else person + 300)
        wanted = "blue" if obeys else "red"
        views = (portrait(identity, number, 64) for number in range(200))
        return next(view.image_uint8 for view in views if view.attributes["background"] == wanted)


BLUE = Prompt(text="a photo of S* on a blue background", expects={"background": "blue"})
SETS = [load_prompt_set("attributes-v1").model_copy(update={"prompts": (BLUE,)})]


@pytest.fixture(scope="module")
def looked(photos, finder, colour_judge, reader, tmp_path_factory):
    config = EvaluationConfig(
        prompt_sets=("attributes-v1",), prompt_people=4, sweeps={"sigma": (0.0, 0.5, 1.0)}, sweep_people=4,
        bootstrap_samples=200, m_values=(1,), branch_alone=2.0, m_pictures=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("series")
    references = [photo for photo in photos if photo.key.endswith("0000-0")]
    name = lambda prompt, dials: f"{prompt[:9]}-{dials.sigma}-{dials.gamma}-{dials.m}"  # noqa: E731
    series = plan_series(config, references, SETS, lambda *asked: folder / name(*asked))
    shots = [shot for one in series for shot in one.shots]
    made = make_missing(shots, Obliging(), 8)
    return series, Looker(config, finder, colour_judge, photos, reader, None), made, shots


def test_pictures_of_the_curve_at_the_ordinary_dials_are_those_of_the_prompts(looked):
    _, _, made, shots = looked
    assert len(shots) == 3 * 8 + 4 + 4 + 3 * 4  # m, two branches, prompt, base alone, three sigmas
    assert made == len(shots) - 4  # sigma = 1 is the prompt's own series


def test_obedience_is_what_was_planted(looked):
    series, looker, _, _ = looked
    found = judge_obedience(looker, series, SETS)
    assert found.obeyed.mean == 0
    assert found.base_obeyed.mean == 1
    assert found.by_attribute["background"].mean == 0
    assert found.obeyed.people == 4
    assert found.clip_t is None
    assert found.sets[0]["version"] == 1
    assert found.reader == looker.reader.mark


def test_the_curve_shows_what_identity_costs(looked):
    series, looker, _, _ = looked
    points = judge_curve(looker, series)["sigma"]
    assert [point.label for point in points] == ["0", "0.5", "1"]
    assert [point.obeyed.mean for point in points] == [1, 1, 0]
    assert points[0].identity.mean < points[1].identity.mean
    assert judge_curve(looker, series)["sigma"] == points


def test_other_m_and_each_branch_alone_have_lines_of_their_own(looked):
    series, looker, _, _ = looked
    lines = {one.label: one for one in series if one.kind == "protocol"}
    dials = {
        label: {(shot.dials.m, shot.dials.gamma, shot.dials.sigma) for shot in one.shots}
        for label, one in lines.items()
    }
    assert dials == {
        "m = 1": {(1, 1.0, 1.0)},
        "text branch alone": {(None, 2.0, 0.0)},
        "visual branch alone": {(None, 0.0, 2.0)},
    }
    assert looker.point([lines["m = 1"]], "m = 1").obeyed is None


def test_few_people_are_taken_evenly(photos):
    some, more = few_people(photos, 4), few_people(photos, 6)
    cells = {(photo.group, photo.gender) for photo in photos}
    assert len({(photo.group, photo.gender) for photo in some}) == min(4, len(cells))
    assert {photo.person for photo in some} <= {photo.person for photo in more}
    assert len({photo.person for photo in more}) == len(more) == 6


def test_a_curve_without_prompts_or_with_a_wrong_value_is_refused():
    with pytest.raises(ValueError, match="sweeps need prompt_sets"):
        EvaluationConfig(sweeps={"sigma": (1.0,)})
    with pytest.raises(ValueError, match=r"evaluation\.sweeps\.sigma"):
        EvaluationConfig(sweeps={"sigma": (9.0,)}, prompt_sets=("attributes-v1",))


@pytest.mark.parametrize("dial", get_args(SweptDial))
def test_a_sweep_turns_its_dial_alone(dial):
    dials = Dials(guidance_scale=3)
    turned = swept(dials, dial, 1.0)
    assert getattr(turned, dial) == 1
    assert turned.model_dump(exclude={dial}) == dials.model_dump(exclude={dial})
