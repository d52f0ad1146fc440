"""PhotoVerse on diffusers' own pipelines: off is the bare pipeline bit for bit, on works with all of them."""

import pytest
import torch

from components.inference import attach, detach
from tests.parity.stock import OFF, ON, PROMPT, card, images, picture


def controlnet_of(pipe):
    from diffusers import ControlNetModel

    torch.manual_seed(1)
    unet = pipe.unet.config
    net = ControlNetModel(
        in_channels=unet.in_channels,
        block_out_channels=unet.block_out_channels,
        down_block_types=unet.down_block_types,
        cross_attention_dim=unet.cross_attention_dim,
        attention_head_dim=unet.attention_head_dim,
        norm_num_groups=unet.norm_num_groups,
        layers_per_block=unet.layers_per_block,
        conditioning_embedding_out_channels=(8, 16, 16),
    )
    for parameter in net.parameters():  # its output layers start at zero, and would do nothing
        torch.nn.init.normal_(parameter, std=0.02)
    return net.eval()


def siblings(pipe):
    """The pipelines that share the networks, each with the arguments that it alone needs."""
    from diffusers import (
        StableDiffusionControlNetPipeline,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
    )

    parts = pipe.components | {"requires_safety_checker": False}
    net = controlnet_of(pipe)
    made = {
        "text": (pipe, {}),
        "img2img": (StableDiffusionImg2ImgPipeline(**parts), {"image": picture(), "strength": 0.9}),
        "inpaint": (
            StableDiffusionInpaintPipeline(**parts),
            {"image": picture(), "mask_image": picture(1, "L"), "strength": 1.0},
        ),
        "controlnet": (StableDiffusionControlNetPipeline(**parts, controlnet=net), {"image": picture(2)}),
    }
    for sibling, _ in made.values():
        sibling.set_progress_bar_config(disable=True)
    return made


KINDS = ["text", "img2img", "inpaint", "controlnet"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_off_is_the_bare_pipeline_bit_for_bit_and_detach_gives_it_back(pipe, adapter, kind, guidance):
    sibling, extra = siblings(pipe)[kind]
    plain = {"prompt": "a person with glasses", "guidance_scale": guidance, "num_inference_steps": 3} | extra
    bare = images(sibling, **plain)
    person = attach(pipe, adapter)
    assert torch.equal(images(sibling, **plain), bare)  # attached, and never asked to draw anybody
    dials = OFF.model_copy(update={"guidance_scale": guidance})
    inputs = person.inputs(["a person with glasses"], [card(person)], dials)
    assert torch.equal(images(sibling, **inputs, **extra), bare)
    detach(pipe)
    assert torch.equal(images(sibling, **plain), bare)


@pytest.mark.parametrize("kind", KINDS)
def test_on_changes_the_picture_by_every_branch(pipe, adapter, kind):
    sibling, extra = siblings(pipe)[kind]
    person = attach(pipe, adapter)
    off = images(sibling, **person.inputs(["a person"], [None], OFF), **extra)
    for prompt, dials in [
        ("a person", ON.model_copy(update={"alpha": 0.0})),
        ("a person", ON.model_copy(update={"sigma": 0.0})),
        ("S*", OFF),
    ]:
        on = images(sibling, **person.inputs([prompt], [card(person)], dials), **extra)
        assert (on - off).abs().max() > 1e-4


def test_off_with_a_negative_prompt_and_several_images(pipe, adapter):
    plain = {"prompt": ["a person", "a photo"], "negative_prompt": ["hat", ""], "num_images_per_prompt": 2}
    bare = images(pipe, **plain, num_inference_steps=3, guidance_scale=3)
    person = attach(pipe, adapter)
    inputs = person.inputs(
        ["a person", "a photo"], [None, card(person)], OFF, ["hat", ""], num_images_per_prompt=2
    )
    assert torch.equal(images(pipe, **inputs), bare)


def test_a_negative_prompt_acts_and_leaves_the_person_in_the_picture(pipe, adapter):
    person = attach(pipe, adapter)
    one, other = card(person, 1), card(person, 2)
    plain = images(pipe, **person.inputs([PROMPT], [one], ON))
    against = images(pipe, **person.inputs([PROMPT], [one], ON, ["glasses, red hair"]))
    assert (plain - against).abs().max() > 1e-4
    assert (
        against - images(pipe, **person.inputs([PROMPT], [other], ON, ["glasses, red hair"]))
    ).abs().max() > 1e-4
    off = ON.model_copy(
        update={"guidance_scale": 1.0}
    )  # without guidance there is nothing that it could act on
    inputs = person.inputs([PROMPT], [one], off, ["glasses, red hair"])
    assert inputs["negative_prompt_embeds"] is None
    assert torch.equal(images(pipe, **inputs), images(pipe, **person.inputs([PROMPT], [one], off)))


MOVING = [
    ON.model_copy(update={"sigma_schedule": ((0, 0), (0.4, 1)), "m_schedule": ((0, 1), (0.4, 3))}),
    ON.model_copy(update={"gamma_schedule": ((0, 1), (0.6, 2)), "sigma_levels": (1, 0.5), "m": 2}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_of_a_prompt_are_those_of_single_calls(pipe, adapter, kind, guidance):
    """Two persons, prompts, negative prompts and sets of dials, two pictures of each, in one call."""
    sibling, extra = siblings(pipe)[kind]
    noise = torch.randn(4, 4, 16, 16)
    if kind == "inpaint":  # it draws from the generators in an order of its own
        encode_without_chance(pipe.vae)
    person = attach(pipe, adapter)
    cards, prompts, negatives = [card(person, 1), card(person, 2)], ["S* one", "a photo of S*"], ["hat", ""]
    dials = [moving.model_copy(update={"guidance_scale": guidance}) for moving in MOVING]

    def draw(at: slice, pictures: slice, **more):
        inputs = person.inputs(prompts[at], cards[at], dials[at], negatives[at], **more)
        if kind == "inpaint":
            inputs["latents"] = noise[pictures]
        rows = range(4)[pictures]
        parts = {k: [v] * len(prompts[at]) if k.endswith("image") else v for k, v in extra.items()}
        generators = [torch.Generator().manual_seed(i) for i in rows]
        return images(sibling, **inputs, **parts, generator=generators)

    many = draw(slice(None), slice(None), num_images_per_prompt=2)
    for i in range(4):
        alone = draw(slice(i // 2, i // 2 + 1), slice(i, i + 1))
        torch.testing.assert_close(alone[0], many[i], atol=1e-4, rtol=0)
    assert (many[0] - many[2]).abs().max() > 1e-3


def encode_without_chance(vae) -> None:
    """Makes an encoder that gives one latent for a picture, not a distribution of them."""
    channels = vae.config.latent_channels
    with torch.no_grad():
        vae.quant_conv.weight[channels:] = 0
        vae.quant_conv.bias[channels:] = -30
