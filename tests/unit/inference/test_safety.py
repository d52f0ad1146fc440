"""The safety checker: diffusers' own on a small model; a blocked picture is a status, no black square."""

import pytest
import torch
from PIL import Image

from components.inference import Blocked, BlockedError, Personalizer
from components.inference.safety import load_safety_check
from components.model import load_pipeline
from tests.unit.inference.conftest import FEW


@pytest.fixture(scope="module")
def base_with_checker(tmp_path_factory):
    """The checker of Stable Diffusion 1.5 in small: its classes, its files, random weights."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("checked")
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
    torch.nn.init.normal_(checker.concept_embeds)
    torch.nn.init.ones_(checker.special_care_embeds_weights)
    checker.save_pretrained(folder / "safety_checker", safe_serialization=True)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder / "feature_extractor")
    return folder


def with_threshold(folder, value):
    from safetensors.torch import load_file, save_file

    file = folder / "safety_checker" / "model.safetensors"
    save_file(load_file(file) | {"concept_embeds_weights": torch.full((17,), value)}, file)
    return load_safety_check(str(folder), "cpu", torch.float32)


def test_diffusers_checker_gives_its_verdict_and_leaves_the_pictures(base_with_checker, photos):
    images = [Image.open(photo) for photo in photos[:2]]
    before = [image.tobytes() for image in images]
    assert with_threshold(base_with_checker, -1.0)(images) == [True, True]
    assert with_threshold(base_with_checker, 1.0)(images) == [False, False]
    assert [image.tobytes() for image in images] == before


def test_a_base_without_a_checker_has_none(model_config):
    assert load_safety_check(model_config.base, "cpu", torch.float32) is None


@pytest.fixture(scope="module")
def strict(model_config, adapter_file):
    """Blocks every other picture of a batch."""

    def check(images):
        return [i % 2 == 1 for i in range(len(images))]

    return Personalizer(load_pipeline(model_config), adapter_file, None, safety_check=check)


def test_a_blocked_picture_is_a_status_in_its_own_place(strict, cards):
    found = strict.generate_each(cards, ["S*"] * 4, [10, 11, 12, 13], FEW)
    assert [found[1], found[3]] == [Blocked(11), Blocked(13)]
    assert found[1].status == "blocked"
    assert all(isinstance(found[i], Image.Image) for i in (0, 2))


def test_who_asks_for_pictures_alone_is_told(strict, cards):
    with pytest.raises(BlockedError, match="blocked by the base's safety checker") as refused:
        strict.generate(cards[:2], ["S*"] * 2, [10, 11], FEW)
    assert refused.value.reason == "blocked"
    assert refused.value.seeds == (11,)
    assert isinstance(
        refused.value, ValueError
    )  # the caller's to mend: a 400 of the server, a row of the ledger


def test_a_batch_fails_the_request_that_is_blocked_and_no_other():
    from components.inference.worker import _written

    with_text = Image.new("RGB", (8, 8))
    fault = _written([with_text, Blocked(3)])
    assert fault.status == "blocked"
    assert fault.words.startswith("blocked by the base's safety checker (seed 3)")
    assert len(_written([with_text])) == 1
