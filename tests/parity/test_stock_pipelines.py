"""PhotoVerse on diffusers' own pipelines: off is the bare pipeline bit for bit, on works with all of them."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from components.inference import Attachment, Dials, attach, detach
from components.model import ModelConfig, PhotoVerseAdapter, load_base, load_pipeline
from tests.factories import TINY, tiny_base

PROMPT = "a photo of S*, smiling"
OFF = Dials(sigma=0, alpha=0, num_inference_steps=3, guidance_scale=3)
ON = Dials(num_inference_steps=3, guidance_scale=3)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    four = TINY.model_copy(update={"vae": TINY.vae.model_copy(update={"latent_channels": 4})})
    return ModelConfig(
        base=str(tiny_base(tmp_path_factory.mktemp("base") / "tiny", four))
    )  # inpainting wants 4


@pytest.fixture(scope="module")
def trained(config):
    base = load_base(config)
    torch.manual_seed(0)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)
    for name, parameter in adapter.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.1)
    return adapter


@pytest.fixture(scope="module")
def loaded(config):
    return load_pipeline(config)


@pytest.fixture
def pipe(loaded):
    copied = type(loaded)(**copy.deepcopy(loaded.components), requires_safety_checker=False)
    copied.set_progress_bar_config(disable=True)
    return copied


@pytest.fixture
def adapter(trained):
    return copy.deepcopy(trained)


def card(person: Attachment, seed: int = 0):
    shape = (1, person.adapter.m, 2, person.adapter.feature_width)
    return person.cards(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))[0]


def picture(seed: int = 0, mode: str = "RGB") -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


def images(pipe, **kwargs) -> torch.Tensor:
    kwargs.setdefault("generator", torch.Generator().manual_seed(3))
    with torch.no_grad():
        return pipe(**kwargs, output_type="pt").images


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


def predictions(pipe, **kwargs) -> list[torch.Tensor]:
    """What the UNet gave at each step of a picture."""
    seen: list[torch.Tensor] = []
    hook = pipe.unet.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0].clone()))
    try:
        images(pipe, **kwargs)
    finally:
        hook.remove()
    return seen


@pytest.mark.parametrize(
    ("schedule", "before"),
    [
        ({"sigma_schedule": ((0, 0), (0.2, 1))}, {"sigma": 0.0}),
        ({"gamma_schedule": ((0, 0.5), (0.2, 1))}, {"gamma": 0.5}),
        ({"alpha_schedule": ((0, 0), (0.2, 1))}, {"alpha": 0.0}),
        ({"m_schedule": ((0, 1), (0.2, 3))}, {"m": 1}),
    ],
)
def test_a_schedule_turns_its_dial_at_the_very_step(pipe, adapter, schedule, before):
    """Of ten steps, the first two are those of the dial before 20%, and the third is another."""
    person = attach(pipe, adapter)
    ten = ON.model_copy(update={"num_inference_steps": 10})
    found, first = (
        predictions(pipe, **person.inputs([PROMPT], [card(person)], ten.model_copy(update=dials)))
        for dials in (schedule, before)
    )
    assert len(found) == len(first) == 10
    for step in (0, 1):
        torch.testing.assert_close(found[step], first[step], atol=1e-5, rtol=1e-5)
    assert (found[2] - first[2]).abs().max() > 1e-4


def test_keys_and_values_are_computed_once_a_picture(pipe, adapter):
    person = attach(pipe, adapter)
    text = [m for name, m in pipe.unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    visual = [layer for kv in adapter.visual_kv.values() for layer in (kv.to_k, kv.to_v)]
    calls: Counter[int] = Counter()
    for layer in text + visual:
        layer.register_forward_hook(lambda module, *_: calls.update([id(module)]))
    for picture_number in (1, 2):
        images(pipe, **person.inputs([PROMPT], [card(person)], ON))
        assert len(calls) == 4 * len(adapter.attentions)
        assert set(calls.values()) == {picture_number}  # of three steps each


SCHEDULERS = ["DDIM", "DPMSolverMultistep", "EulerDiscrete", "UniPCMultistep", "PNDM", "LCM"]


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_any_scheduler(pipe, adapter, name):
    import diffusers

    steady = {"rescale_betas_zero_snr": False}
    config = {**pipe.scheduler.config, **steady}
    pipe.scheduler = getattr(diffusers, f"{name}Scheduler").from_config(config)
    bare = images(pipe, prompt="a person", num_inference_steps=4, guidance_scale=3)
    person = attach(pipe, adapter)
    four = {"num_inference_steps": 4}
    off = person.inputs(["a person"], [card(person)], OFF.model_copy(update=four))
    assert torch.equal(images(pipe, **off), bare)
    on = images(pipe, **person.inputs(["S*"], [card(person)], ON.model_copy(update=four)))
    assert on.isfinite().all()
    assert (on - bare).abs().max() > 1e-4


@pytest.mark.parametrize("when", ["before", "after"])
def test_attention_slicing(pipe, adapter, when):
    person = attach(pipe, adapter)
    expected = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    detach(pipe)
    if when == "before":
        pipe.enable_attention_slicing()
    person = attach(pipe, adapter)
    if when == "after":
        pipe.enable_attention_slicing()
    sliced = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    torch.testing.assert_close(sliced, expected, atol=1e-4, rtol=0)


def test_beside_a_users_own_lora(pipe, adapter):
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"]), "style")
    for name, parameter in pipe.unet.named_parameters():
        if "lora_B.style" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    styled = images(pipe, prompt="a person", num_inference_steps=3, guidance_scale=3)
    person = attach(pipe, adapter)
    both = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    off = images(pipe, **person.inputs(["a person"], [None], OFF))
    torch.testing.assert_close(off, styled, atol=1e-5, rtol=0)
    pipe.set_adapters(["style"], [0.0])  # the usual call, which would silence ours
    alone = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    assert (both - alone).abs().max() > 1e-4
    detach(pipe)
    pipe.set_adapters(["style"], [1.0])
    assert torch.equal(images(pipe, prompt="a person", num_inference_steps=3, guidance_scale=3), styled)


def test_two_persons_each_in_a_region(pipe, adapter):
    person = attach(pipe, adapter)
    one, two = card(person, 1), card(person, 2)
    prompt = ["S1* and S2*"]
    together = images(pipe, **person.inputs(prompt, [[one, two]], ON))
    swapped = images(pipe, **person.inputs(prompt, [[two, one]], ON))
    assert (together - swapped).abs().max() > 1e-4
    left = torch.zeros(1, 2, 16, 16)
    left[:, 0, :, :8], left[:, 1, :, 8:] = 1, 1
    apart = images(pipe, **person.inputs(prompt, [[one, two]], ON, regions=left))
    assert (apart - together).abs().max() > 1e-4
    everywhere = torch.cat([torch.ones(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)], 1)
    first = images(pipe, **person.inputs(["a person"], [[one, two]], ON, regions=everywhere))
    torch.testing.assert_close(
        first, images(pipe, **person.inputs(["a person"], [one], ON)), atol=1e-4, rtol=0
    )


@pytest.mark.filterwarnings("ignore")
def test_torch_compile(pipe, adapter):
    """Dynamo traces the UNet with our processors; what a backend makes of the graph is its own affair."""
    person = attach(pipe, adapter)
    expected = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    torch._dynamo.reset()
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    compiled = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    torch.testing.assert_close(compiled, expected, atol=1e-4, rtol=0)
    pipe.unet = pipe.unet._orig_mod
    detach(pipe)


def test_offload_hooks(pipe, adapter):
    """The hooks of `enable_model_cpu_offload`, which wants an accelerator: arguments pass through copies."""
    from accelerate import cpu_offload_with_hook

    person = attach(pipe, adapter)
    dials = ON.model_copy(update={"sigma_schedule": ((0, 0), (0.5, 1))})
    expected = images(pipe, **person.inputs([PROMPT], [card(person)], dials))
    hook = None
    for part in (pipe.text_encoder, pipe.unet, pipe.vae):
        _, hook = cpu_offload_with_hook(part, "cpu", prev_module_hook=hook)
    torch.testing.assert_close(images(pipe, **person.inputs([PROMPT], [card(person)], dials)), expected)


def test_model_cpu_offload_as_users_call_it(pipe, adapter):
    """diffusers' own switch, onto this machine's only device."""
    person = attach(pipe, adapter)
    expected = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    pipe.enable_model_cpu_offload(device="cpu")
    offloaded = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    torch.testing.assert_close(offloaded, expected, atol=1e-5, rtol=0)
    detach(pipe)


@pytest.mark.gpu
def test_model_cpu_offload(pipe, adapter):
    person = attach(pipe.to("cuda"), adapter)
    expected = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    pipe.enable_model_cpu_offload()
    offloaded = images(pipe, **person.inputs([PROMPT], [card(person)], ON))
    torch.testing.assert_close(offloaded, expected, atol=1e-3, rtol=0)
