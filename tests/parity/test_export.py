"""What is exported draws, with stock loaders and none of our code, what PhotoVerse draws."""

import pytest
import torch
from diffusers.models.embeddings import IPAdapterFullImageProjection
from safetensors.torch import load_file

from components.inference import Dials, attach, export_for_diffusers
from components.inference.export import frozen_projection
from components.model import ModelConfig, PhotoVerseAdapter, load_base, load_pipeline
from tests.factories import tiny_base

pytestmark = pytest.mark.filterwarnings("ignore")  # stock loaders are talkative


@pytest.mark.parametrize(("count", "width"), [(1, 32), (3, 32), (5, 768), (10, 1024)])
def test_a_layer_norm_can_be_made_to_give_any_few_tokens(count, width):
    tokens = torch.randn(count, width) * 0.5 + torch.randn(1, width)
    embeds, weights = frozen_projection(tokens)
    stock = IPAdapterFullImageProjection(cross_attention_dim=width, image_embed_dim=count + 1)
    names = {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"}
    stock.load_state_dict({names[key[:6]] + key[6:]: value for key, value in weights.items()})
    with torch.no_grad():
        nobody, person = stock(embeds)[:, 0] if embeds.ndim == 3 else stock(embeds).squeeze(1)
    torch.testing.assert_close(person, tokens, atol=1e-4, rtol=0)
    torch.testing.assert_close(nobody, torch.zeros_like(tokens), atol=1e-4, rtol=0)


def test_too_many_tokens_for_an_exact_export_is_an_error():
    with pytest.raises(ValueError, match="20 visual tokens are too many for a width of 32"):
        frozen_projection(torch.randn(20, 32))


@pytest.mark.parametrize(
    ("guidance", "m", "sigma", "switches"),
    [
        (1.0, None, 1.0, {}),
        (3.0, None, 0.5, {}),
        (3.0, 1, 1.0, {}),
        (3.0, None, 1.0, {"lora_targets": "all"}),
    ],
)
def test_stock_loaders_draw_the_same_picture(tmp_path, guidance, m, sigma, switches):
    config = ModelConfig(base=str(tiny_base(tmp_path / "base")), **switches)
    base = load_base(config)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)
    for name, parameter in adapter.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(parameter, std=0.1)
    person = attach(load_pipeline(config), adapter)
    card = person.cards(torch.randn(1, *base.extractor.shape))[0]
    dials = Dials(num_inference_steps=4, guidance_scale=guidance, m=m, sigma=sigma)
    inputs = person.inputs(["a photo of S*, smiling"], [card], dials)
    with torch.no_grad():
        ours = person.pipe(**inputs, generator=torch.Generator().manual_seed(0), output_type="pt").images

    folder = tmp_path / "export"
    export_for_diffusers(adapter, card, folder, m)
    pipe = load_pipeline(config)
    pipe.load_lora_weights(folder, weight_name="lora.safetensors", adapter_name="photoverse")
    pipe.load_textual_inversion(folder / "words.safetensors")
    pipe.load_ip_adapter(folder, "", "ip_adapter.safetensors", image_encoder_folder=None)
    pipe.set_ip_adapter_scale(sigma)
    embeds = load_file(folder / "image_embeds.safetensors")["embeds"]
    theirs = pipe(
        "a photo of <person>, smiling",
        ip_adapter_image_embeds=[embeds if guidance > 1 else embeds[1:]],
        num_inference_steps=4,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=0)
    bare = load_pipeline(config)(
        "a photo of a person, smiling",
        num_inference_steps=4,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    assert (ours - bare).abs().max() > 0.01  # else the comparison above would prove nothing
