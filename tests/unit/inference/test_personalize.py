import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from components.core import sha256_file
from components.face import FaceConfig
from components.inference import Dials, Personalizer, read_recipe, save_png
from components.model import ModelConfig, load_extractor, load_pipeline, save_adapter
from tests.unit.inference.conftest import FEW


def pixels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def differ(a, b) -> int:
    return int(np.abs(pixels(a) - pixels(b)).max())


def test_a_photo_becomes_a_card_and_pictures(personalizer, photos, adapter_file):
    card = personalizer.card(photos[0], consent="drawn")
    assert card.words.shape == (3, 32)
    assert card.consent.purpose == "drawn"
    assert card.adapter_hash == sha256_file(adapter_file)
    image = personalizer.generate([card], ["a photo of S*"], [0], FEW)[0]
    assert image.size == (64, 64)


def test_several_photos_make_one_card(personalizer, photos):
    alone = [personalizer.card(photo) for photo in photos[:2]]
    both = personalizer.card(photos[:2])
    torch.testing.assert_close(both.words, (alone[0].words + alone[1].words) / 2, atol=1e-5, rtol=1e-4)
    assert len(personalizer.card(photos[:2], combine="stack").visual_tokens) == 6
    with pytest.raises(ValueError, match="at least one photo"):
        personalizer.card([])


def test_a_picture_does_not_depend_on_the_rest_of_its_batch(personalizer, cards):
    persons = [*cards, None, cards[0], cards[1], cards[2]]
    prompts = ["S*", "a photo of S*, smiling", "S* with glasses", "S*", "a person", "S* twice S*", "S*", "S*"]
    dials = [FEW.model_copy(update={"sigma": s, "m": m}) for s, m in zip(
        [1, 0, 2, 1, 1, 0.5, 1, 1.5], [None, 1, 2, None, None, 1, 3, 2], strict=True)]  # fmt: skip
    together = personalizer.generate(persons, prompts, range(8), dials)
    for i in (0, 1, 4, 5, 7):
        alone = personalizer.generate(persons[i : i + 1], prompts[i : i + 1], [i], dials[i])[0]
        assert differ(alone, together[i]) <= 1  # one grey level may fall on either side of a rounding


def test_pixels_of_a_picture_alone_and_in_a_batch_of_eight_agree_to_1e_4(personalizer, cards):
    def pixels_01(chosen):
        inputs = personalizer.attachment.inputs(["S*"] * len(chosen), [cards[i] for i in chosen], FEW)
        generators = [torch.Generator().manual_seed(i) for i in chosen]
        with torch.no_grad():
            return personalizer.attachment.pipe(**inputs, generator=generators, output_type="pt").images

    together = pixels_01([0, 1, 2, 3, 3, 2, 1, 0])
    for i in range(8):
        torch.testing.assert_close(pixels_01([min(i, 7 - i)])[0], together[i], atol=1e-4, rtol=0)


def test_pictures_with_different_dials_of_a_call_come_back_in_order(personalizer, cards):
    dials = [FEW.model_copy(update={"num_inference_steps": n}) for n in (2, 3, 2)]
    images = personalizer.generate(cards[:3], ["S*"] * 3, [5, 6, 7], dials)
    for i in range(3):
        assert differ(images[i], personalizer.generate([cards[i]], ["S*"], [5 + i], dials[i])[0]) <= 1


TURNED = [
    {"gamma": 2.0},
    {"sigma": 0.0},
    {"alpha": 0.0},
    {"m": 1},
    {"sigma_schedule": ((0, 0), (0.5, 1))},
    {"gamma_schedule": ((0, 1), (0.5, 2))},
    {"alpha_schedule": ((0, 0), (0.5, 1))},
    {"m_schedule": ((0, 1), (0.5, 3))},
    {"sigma_levels": (1, 0)},
    {"gamma_levels": (2, 1)},
    {"alpha_levels": (1, 0)},
    {"m_levels": (3, 1)},
]


@pytest.mark.parametrize("dial", TURNED)
def test_every_dial_turns_the_picture(personalizer, cards, dial):
    plain = personalizer.generate([cards[0]], ["a photo of S*"], [0], FEW)[0]
    turned = personalizer.generate([cards[0]], ["a photo of S*"], [0], FEW.model_copy(update=dial))[0]
    assert differ(plain, turned) > 0


def test_a_schedule_that_is_always_one_changes_nothing(personalizer, cards):
    plain = personalizer.generate([cards[0]], ["S*"], [0], FEW)[0]
    flat = FEW.model_copy(update={"sigma_schedule": ((0, 1), (0.5, 1)), "alpha_schedule": ((0, 1), (0.6, 1))})
    assert differ(plain, personalizer.generate([cards[0]], ["S*"], [0], flat)[0]) <= 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"m_schedule": ((0, 2), (0.4, 2))}, {"m": 2}),
        ({"m_schedule": ((0, 1), (1, 3))}, {"m": 1}),  # from the last step's end on: never
        ({"m_levels": (2, 2)}, {"m": 2}),
        ({"alpha_levels": (0.5, 0.5)}, {"alpha": 0.5}),
        ({"alpha_levels": (0, 0)}, {"alpha_schedule": ((0, 0),)}),
        ({"gamma_levels": (0.5, 0.5), "sigma_levels": (2, 2)}, {"gamma": 0.5, "sigma": 2.0}),
        ({"sigma_schedule": ((0, 0.5),)}, {"sigma": 0.5}),
    ],
)
def test_two_ways_of_saying_the_same_draw_the_same(personalizer, cards, one, other):
    persons, prompts = [cards[0], None, cards[1]], ["S* smiling", "a person", "S* and S*"]
    drawn = [
        personalizer.generate(persons, prompts, [0, 1, 2], FEW.model_copy(update=dials), ["hat", "", "hat"])
        for dials in (one, other)
    ]
    assert all(differ(*pair) <= 1 for pair in zip(*drawn, strict=True))


def test_rows_with_schedules_of_their_own_stand_beside_each_other(personalizer, cards):
    """Some turn m at other moments, some by level, some not at all; each is drawn as it would be alone."""
    dials = [
        FEW.model_copy(update=update)
        for update in (
            {"m_schedule": ((0, 1), (0.5, 3))},
            {"m_schedule": ((0, 3), (0.3, 2))},
            {"m": 2},
            {"m_levels": (1, 3)},
        )
    ]
    prompts = ["S*", "S* smiling", "a photo of S*", "S* at home"]
    together = personalizer.generate(cards, prompts, range(4), dials)
    for i in range(4):
        alone = personalizer.generate(cards[i : i + 1], prompts[i : i + 1], [i], dials[i])[0]
        assert differ(alone, together[i]) <= 1


def test_a_schedule_after_the_last_step_is_sigma_zero(personalizer, cards):
    never = FEW.model_copy(update={"sigma_schedule": ((0, 0), (1, 1))})
    zero = FEW.model_copy(update={"sigma": 0.0})
    expected = personalizer.generate([cards[0]], ["S*"], [0], zero)[0]
    assert differ(expected, personalizer.generate([cards[0]], ["S*"], [0], never)[0]) <= 1


def test_image_to_image_starts_from_the_photo(personalizer, cards, photos):
    start = personalizer.start_image(photos[0])
    assert start.size == (64, 64)
    weak, strong = (FEW.model_copy(update={"num_inference_steps": 10, "strength": s}) for s in (0.1, 1.0))
    near = personalizer.generate([cards[0]], ["S*"], [0], weak, start_images=[start])[0]
    far = personalizer.generate([cards[0]], ["S*"], [0], strong, start_images=[start])[0]
    assert differ(near, far) > 0
    with pytest.raises(ValueError, match="needs a start image"):
        personalizer.generate([cards[0]], ["S*"], [0], weak)


def test_the_png_carries_its_recipe(personalizer, cards, tmp_path, adapter_file):
    images = personalizer.generate([cards[0]], ["S* at home"], [11], FEW, keep_prompt=True)
    facts = read_recipe(save_png(images[0], tmp_path / "a.png"))
    assert facts["ai_generated"] is True
    assert facts["seed"] == 11
    assert facts["prompt"] == "S* at home"
    assert facts["adapter_sha256"] == sha256_file(adapter_file)
    assert Dials.model_validate_json(json.dumps(facts["dials"])) == FEW
    hidden = personalizer.generate([cards[0]], ["S* at home"], [11], FEW)[0].info["photoverse"]
    assert "at home" not in hidden
    assert json.loads(hidden)["prompt_sha256"] == facts["prompt_sha256"]


def test_a_card_that_is_expired_or_of_another_model_is_refused(personalizer, cards):
    old = replace(cards[0], expires=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="expired on 2020-01-01"):
        personalizer.generate([old], ["S*"], [0], FEW)
    other = replace(cards[0], adapter_hash="c" * 64)
    with pytest.raises(ValueError, match="made for the adapter"):
        personalizer.generate([other], ["S*"], [0], FEW)


def test_faults_of_a_call_are_said_before_anything_is_drawn(personalizer, cards):
    with pytest.raises(ValueError, match="too long"):
        personalizer.generate([cards[0]], ["S* " + "a " * 40], [0], FEW)
    with pytest.raises(ValueError, match="1 prompts, but 2 seeds"):
        personalizer.generate([cards[0]], ["S*"], [0, 1], FEW)
    with pytest.raises(ValueError, match=r"1\.\.3"):
        personalizer.generate([cards[0]], ["S*"], [0], FEW.model_copy(update={"m": 4}))


def test_another_image_encoder_is_refused(model_config, adapter_file):
    extractor = load_extractor(model_config)
    torch.nn.init.normal_(extractor.image_encoder.vision_model.embeddings.class_embedding)
    with pytest.raises(ValueError, match="image encoder"):
        Personalizer(load_pipeline(model_config), adapter_file, extractor)


def test_faces_are_cut_as_in_training_unless_something_else_is_asked_for(
    model_config, personalizer, adapter_file, tmp_path
):
    told = tmp_path / "told.safetensors"
    trained = FaceConfig(mask_hair=True, min_score=0.7)
    save_adapter(personalizer.attachment.adapter, told, {"face": trained.model_dump(mode="json")})
    assert Personalizer.load(told, model_config).face == trained
    assert Personalizer.load(told, model_config, FaceConfig()).face == FaceConfig()
    assert Personalizer.load(adapter_file, model_config).face == FaceConfig()  # an older file does not say


def test_a_tool_for_finished_cards_draws_them_and_says_that_it_reads_no_photos(
    model_config, personalizer, adapter_file, cards, photos
):
    tool = Personalizer.load(adapter_file, model_config, cards_only=True)
    expected = personalizer.generate([cards[0]], ["S*"], [0], FEW)[0]
    assert differ(tool.generate([cards[0]], ["S*"], [0], FEW)[0], expected) <= 1
    with pytest.raises(ValueError, match="no image encoder was loaded"):
        tool.card(photos[0])


def test_the_adapters_own_switches_win_over_those_given(model_config, adapter_file):
    given = ModelConfig(base=model_config.base, feature_layers=(1,), lora_rank=64)
    assert Personalizer.load(adapter_file, given).attachment.adapter.m == 3
