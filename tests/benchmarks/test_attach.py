"""What PhotoVerse costs at inference, against the bare pipeline and against diffusers' own IP-Adapter.

One thread, timed by the processor's clock: on a quiet machine that is the time a picture takes, on a busy
one it leaves out the neighbours, who would otherwise decide a comparison of a few percent.
"""

import gc
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from components.inference import Dials, attach
from components.model import KeyValueCache, ModelConfig, PhotoVerseAdapter, install, load_base, load_pipeline
from components.model.fits import Fits
from components.model.layers import cross_attentions, lora_layers
from tests.benchmarks.conftest import record
from tests.factories import tiny_base
from tests.full_size import SD15, filled, full_size_unet

STEPS, GUIDANCE = 10, 3.0
TOKENS = 4  # an IP-Adapter has four; so has PhotoVerse with four feature layers


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a shared machine measure the neighbours
    yield
    torch.set_num_threads(before)


def cpu_seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.fixture
def ratio(bench_results) -> Callable[..., float]:
    """As the harness' own `ratio`, by processor time."""

    def measure(name: str, candidate: Any, reference: Any, runs: int, against: str) -> float:
        pairs = [(cpu_seconds(candidate), cpu_seconds(reference)) for _ in range(runs + 1)]
        return record(bench_results, name, pairs[1:], against)

    return measure


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    """The portrait base's sizes with random weights: bare pipeline, attached pipeline, a card."""
    from components.portraits.config import BaseArchitecture

    folder = tiny_base(tmp_path_factory.mktemp("base") / "portrait", BaseArchitecture())
    config = ModelConfig(base=str(folder), feature_layers=(1, 2, 4, 6))
    base = load_base(config)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)
    pipe = load_pipeline(config)
    person = attach(pipe, adapter)
    card = person.cards(torch.randn(1, *base.extractor.shape))[0]
    return load_pipeline(config), person, card


def bare_picture(pipe: Any, **more: Any) -> None:
    pipe(
        prompt=["a photo of a person"],
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        **more,
    )


def our_picture(person: Any, card: Any) -> None:
    dials = Dials(num_inference_steps=STEPS, guidance_scale=GUIDANCE)
    inputs = person.inputs(["a photo of S*"], [card], dials)
    person.pipe(**inputs, generator=torch.Generator().manual_seed(0), output_type="pt")


def test_a_picture_attached_costs_what_it_costs_bare(ratio, portrait):
    bare, person, card = portrait
    value = ratio(
        "attach_over_bare",
        lambda: our_picture(person, card),
        lambda: bare_picture(bare),
        runs=41,
        against="the same pipeline bare, portrait base, 10 steps with guidance",
    )
    assert value <= 1.05


def ip_adapter_weights(adapter: PhotoVerseAdapter, width: int) -> dict[str, dict[str, torch.Tensor]]:
    """An IP-Adapter with our visual K/V, and a projection of its own."""
    text = adapter.text_width
    heads: dict[str, torch.Tensor] = {}
    for i, layer in enumerate(adapter.attentions):
        visual: Any = adapter.visual_kv[layer.key]
        heads[f"{2 * i + 1}.to_k_ip.weight"] = visual.to_k.weight.detach()
        heads[f"{2 * i + 1}.to_v_ip.weight"] = visual.to_v.weight.detach()
    projection = {
        "proj.weight": torch.randn(TOKENS * text, width) * 0.05,
        "proj.bias": torch.zeros(TOKENS * text),
        "norm.weight": torch.ones(text),
        "norm.bias": torch.zeros(text),
    }
    return {"image_proj": projection, "ip_adapter": heads}


@pytest.mark.filterwarnings("ignore")
def test_a_picture_costs_no_more_than_with_diffusers_ip_adapter(ratio, portrait):
    bare, person, card = portrait
    assert len(card.visual_tokens) == TOKENS
    unet = twin(bare.unet)
    unet._load_ip_adapter_weights([ip_adapter_weights(person.adapter, 32)])
    theirs = type(bare)(**bare.components | {"unet": unet}, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    embeds = [torch.randn(2, 1, 32)]
    value = ratio(
        "attach_over_ip_adapter",
        lambda: our_picture(person, card),
        lambda: bare_picture(theirs, ip_adapter_image_embeds=embeds),
        runs=41,
        against="diffusers' IP-Adapter with four tokens, portrait base, 10 steps with guidance",
    )
    assert value <= 1.0


def twin(unet: Any) -> Any:
    """A second UNet that shares the first one's weights: no memory, no difference."""
    with torch.device("meta"):
        other = type(unet).from_config(unet.config)
    other.load_state_dict(unet.state_dict(), assign=True)
    return other.requires_grad_(False).eval()


def test_a_full_size_unet_attached_costs_what_it_costs_bare(ratio):
    """SD 1.5's UNet at 32 x 32 latents, two steps: the fewest that show what a picture costs."""
    bare = filled(full_size_unet(SD15))
    attached = twin(bare)
    width = SD15["cross_attention_dim"]
    adapter = PhotoVerseAdapter(
        ModelConfig(),
        feature_layers=(1, 2, 3, 4),
        feature_width=64,
        text_width=width,
        attentions=cross_attentions(attached),
        lora=lora_layers(attached, ModelConfig()),
        fits=Fits(base_name="random", base={}, image_encoder={}),
    )
    install(attached, adapter)
    latents, text = torch.randn(1, 4, 32, 32), torch.randn(1, 77, width)
    visual = {
        "visual_tokens": torch.randn(1, TOKENS, width),
        "gamma": torch.ones(1),
        "sigma": torch.ones(1),
    }

    @torch.no_grad()
    def steps(unet: Any, kwargs: dict[str, Any] | None) -> None:
        if kwargs is not None:
            kwargs = kwargs | {"kv_cache": KeyValueCache()}
        for timestep in (900, 500):
            unet(latents, timestep, text, cross_attention_kwargs=kwargs)

    value = ratio(
        "attach_over_bare_sd15",
        lambda: steps(attached, visual),
        lambda: steps(bare, None),
        runs=5,
        against="the same UNet bare: SD 1.5 shape, 32 x 32 latents, two steps",
    )
    assert value <= 1.05
