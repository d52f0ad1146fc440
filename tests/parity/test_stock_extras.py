"""What may be turned on beside PhotoVerse: schedules, schedulers, slicing, LoRA, regions, offload."""

from collections import Counter

import pytest
import torch

from components.inference import attach, detach
from tests.parity.stock import OFF, ON, PROMPT, card, images


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
