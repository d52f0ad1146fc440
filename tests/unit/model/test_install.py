import copy

import pytest
import torch
from peft import LoraConfig
from torch import nn

from components.model import (
    Fits,
    ModelConfig,
    PhotoVerseAdapter,
    cross_attentions,
    install,
    installation,
    lora_layers,
    mend,
    set_lora_scale,
    uninstall,
)
from tests.full_size import SD15, SD21, full_size_unet


def run(unet, **kwargs):
    generator = torch.Generator().manual_seed(0)
    size = unet.config.sample_size
    latents = torch.randn(2, unet.config.in_channels, size, size, generator=generator)
    text = torch.randn(2, 7, unet.config.cross_attention_dim, generator=generator)
    with torch.no_grad():
        return unet(latents, torch.tensor([5, 900]), text, **kwargs).sample


def person(unet, sigma=1.0, gamma=1.0):
    tokens = torch.randn(2, 3, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
    return {
        "cross_attention_kwargs": {
            "visual_tokens": tokens,
            "gamma": torch.full((2,), gamma),
            "sigma": torch.full((2,), sigma),
        }
    }


def state_hash(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_on_changes_the_output_and_off_is_the_base_bit_for_bit(base, adapter):
    bare = run(base.unet)
    install(base.unet, adapter)
    assert not torch.allclose(run(base.unet, **person(base.unet)), bare, atol=1e-4)
    set_lora_scale(base.unet, 0.0)
    assert torch.equal(run(base.unet, **person(base.unet, sigma=0.0)), bare)
    assert torch.equal(run(base.unet), bare)


def test_uninstall_gives_back_the_very_unet(base, adapter):
    before, bare = state_hash(base.unet), run(base.unet)
    modules = [type(module) for module in base.unet.modules()]
    install(base.unet, adapter)
    uninstall(base.unet)
    after = base.unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [type(module) for module in base.unet.modules()] == modules
    assert installation(base.unet) is None
    assert torch.equal(run(base.unet), bare)


def test_the_adapter_can_move_to_another_unet_and_back(base, adapter):
    other = copy.deepcopy(base.unet)
    install(base.unet, adapter)
    first = run(base.unet, **person(base.unet))
    uninstall(base.unet)
    install(other, adapter)
    assert torch.equal(run(other, **person(other)), first)


def test_alpha_is_a_free_dial_of_the_lora_part(base, adapter):
    install(base.unet, adapter)
    outputs = {}
    for alpha in (0.0, 0.5, 1.0):
        set_lora_scale(base.unet, alpha)
        outputs[alpha] = run(base.unet)
    assert not torch.allclose(outputs[0.5], outputs[1.0], atol=1e-4)
    assert not torch.allclose(outputs[0.0], outputs[0.5], atol=1e-4)
    layer, dw = next(iter(adapter.low_ranks()))
    set_lora_scale(base.unet, 0.5)
    x = torch.randn(3, 32)
    linear = base.unet.get_submodule(layer.name)
    torch.testing.assert_close(linear(x), linear.base_layer(x) + 0.5 * x @ dw.a.T @ dw.b.T)


def test_alpha_may_differ_by_resolution_level(base, adapter):
    install(base.unet, adapter)
    set_lora_scale(base.unet, (0.25, 2.0))
    seen = set()
    for layer, dw in adapter.low_ranks():
        module = base.unet.get_submodule(layer.name)
        x = torch.randn(3, 32)
        expected = module.base_layer(x) + (0.25, 2.0)[layer.level] * x @ dw.a.T @ dw.b.T
        torch.testing.assert_close(module(x), expected)
        seen.add(layer.level)
    assert seen == {0, 1}
    mixed = run(base.unet)
    base.unet.unload_lora()
    mend(base.unet)
    assert torch.equal(run(base.unet), mixed)
    set_lora_scale(base.unet, 0.25)
    assert not torch.allclose(run(base.unet), mixed, atol=1e-4)


def test_all_of_the_unet_may_get_a_lora(base):
    config = ModelConfig(base=base.name, lora_targets="all", lora_rank=2)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)
    bare, before = run(base.unet), state_hash(base.unet)
    blocks = [base.unet.down_blocks, base.unet.mid_block, base.unet.up_blocks]
    layers = [m for block in blocks for m in block.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert len(layers) == len(adapter.lora_layers) > len(adapter.attentions)
    install(base.unet, adapter)
    assert torch.equal(run(base.unet), bare)
    for _, dw in adapter.low_ranks():
        nn.init.normal_(dw.b, std=0.1)
    for scale in (0.5, (0.25, 2.0)):
        set_lora_scale(base.unet, scale)
        for layer, dw in adapter.low_ranks():
            check_dw(base.unet.get_submodule(layer.name), dw, scale if scale == 0.5 else scale[layer.level])
    assert not torch.allclose(run(base.unet), bare, atol=1e-3)
    uninstall(base.unet)
    after = base.unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def check_dw(module, dw, scale):
    """A layer gives what one with the weight W + scale B A gives."""
    plain = copy.deepcopy(module.base_layer)
    with torch.no_grad():
        plain.weight += scale * (dw.b.flatten(1) @ dw.a.flatten(1)).view_as(plain.weight)
    like = (3, plain.in_features) if isinstance(plain, nn.Linear) else (3, plain.in_channels, 8, 8)
    x = torch.randn(like)
    torch.testing.assert_close(module(x), plain(x), atol=1e-5, rtol=1e-4)


def test_each_resolution_level_may_read_a_text_of_its_own(base, adapter):
    install(base.unet, adapter)
    width = base.unet.config.cross_attention_dim
    one, other = (torch.randn(2, 7, width, generator=torch.Generator().manual_seed(i)) for i in (3, 4))
    by_text = {id(text): run_with(base, text) for text in (one, other)}
    for texts in ([one, one], [other, other]):
        found = run(base.unet, cross_attention_kwargs={"texts": texts})
        torch.testing.assert_close(found, by_text[id(texts[0])])
    for texts in ([one, other], [other, one]):
        found = run(base.unet, cross_attention_kwargs={"texts": texts})
        assert all(not torch.allclose(found, whole, atol=1e-4) for whole in by_text.values())
    with pytest.raises(ValueError, match="texts is for 1 samples, but the UNet got 2"):
        run(base.unet, cross_attention_kwargs={"texts": [one[:1]] * 2})


def run_with(base, text):
    size, generator = base.unet.config.sample_size, torch.Generator().manual_seed(0)
    latents = torch.randn(2, base.unet.config.in_channels, size, size, generator=generator)
    with torch.no_grad():
        return base.unet(latents, torch.tensor([5, 900]), text).sample


def add_user_lora(unet):
    unet.add_adapter(LoraConfig(r=2, init_lora_weights="gaussian", target_modules=["to_q", "to_k"]), "style")
    generator = torch.Generator().manual_seed(2)
    for name, parameter in unet.named_parameters():
        if "lora_B.style" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def test_it_lives_beside_a_users_own_lora(base, adapter):
    bare = run(base.unet)
    add_user_lora(base.unet)
    styled = run(base.unet)
    assert not torch.allclose(styled, bare, atol=1e-4)
    flags = {name: p.requires_grad for name, p in base.unet.named_parameters()}
    install(base.unet, adapter)
    assert set(base.unet.active_adapters()) == {"style", "photoverse"}
    set_lora_scale(base.unet, 0.0)
    torch.testing.assert_close(run(base.unet, **person(base.unet, sigma=0.0)), styled, atol=1e-6, rtol=1e-5)
    uninstall(base.unet)
    assert torch.equal(run(base.unet), styled)
    assert {name: p.requires_grad for name, p in base.unet.named_parameters()} == flags


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_a_lora_loaded_later_does_not_silence_the_person(base, adapter):
    install(base.unet, adapter)
    add_user_lora(base.unet)  # diffusers makes the new one the only active one
    assert base.unet.active_adapters() == ["style"]
    mend(base.unet)
    assert set(base.unet.active_adapters()) == {"style", "photoverse"}
    uninstall(base.unet)
    assert base.unet.active_adapters() == ["style"]


def test_unloading_all_lora_does_not_silence_the_person(base, adapter):
    install(base.unet, adapter)
    expected = run(base.unet, **person(base.unet))
    base.unet.unload_lora()
    mend(base.unet)
    assert torch.equal(run(base.unet, **person(base.unet)), expected)
    uninstall(base.unet)


def test_attention_slicing_after_install_is_mended(base, adapter):
    install(base.unet, adapter)
    expected = run(base.unet, **person(base.unet))
    base.unet.set_attention_slice("max")
    mend(base.unet)
    torch.testing.assert_close(run(base.unet, **person(base.unet)), expected, atol=1e-5, rtol=1e-5)
    before = [module.processor for module in base.unet.modules() if hasattr(module, "set_processor")]
    mend(base.unet)
    assert before == [module.processor for module in base.unet.modules() if hasattr(module, "set_processor")]


def test_gamma_and_sigma_are_per_sample(base, adapter):
    install(base.unet, adapter)
    kwargs = person(base.unet)
    kwargs["cross_attention_kwargs"] |= {"gamma": torch.tensor([1.0, 2.0]), "sigma": torch.tensor([1.0, 0.0])}
    mixed = run(base.unet, **kwargs)
    torch.testing.assert_close(mixed[0], run(base.unet, **person(base.unet))[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        mixed[1], run(base.unet, **person(base.unet, 0.0, 2.0))[1], atol=1e-5, rtol=1e-5
    )


def test_weights_per_resolution_level(base, adapter):
    install(base.unet, adapter)
    levels = len(base.unet.config.block_out_channels)
    assert {layer.level for layer in adapter.attentions} == set(range(levels))
    kwargs = person(base.unet)
    kwargs["cross_attention_kwargs"]["sigma"] = torch.ones(2, levels)
    torch.testing.assert_close(run(base.unet, **kwargs), run(base.unet, **person(base.unet)))
    kwargs["cross_attention_kwargs"]["sigma"] = torch.tensor([[1.0, 0.0]] * 2)
    assert not torch.allclose(run(base.unet, **kwargs), run(base.unet, **person(base.unet)), atol=1e-4)


def test_a_batch_of_another_size_is_refused_with_advice(base, adapter):
    install(base.unet, adapter)
    kwargs = person(base.unet)
    kwargs["cross_attention_kwargs"]["sigma"] = torch.ones(3)
    with pytest.raises(ValueError, match="sigma is for 3 samples, but the UNet got 2"):
        run(base.unet, **kwargs)


def test_twice_or_never_installed_is_an_error(base, adapter):
    with pytest.raises(ValueError, match="call install"):
        uninstall(base.unet)
    install(base.unet, adapter)
    with pytest.raises(ValueError, match="already"):
        install(base.unet, adapter)


@pytest.mark.filterwarnings("ignore:.*meta.*")
@pytest.mark.parametrize(
    ("config", "visual_kv", "lora"), [(SD21, 25_559_040, 230_912), (SD15, 19_169_280, 198_144)]
)
def test_full_size_bases_get_the_layers_and_parameter_counts_that_follow_from_their_configs(
    config, visual_kv, lora
):
    unet = full_size_unet(config)
    layers = cross_attentions(unet)
    assert len(layers) == 16
    assert [sum(layer.level == level for layer in layers) for level in range(4)] == [5, 5, 5, 1]
    width = config["cross_attention_dim"]
    with torch.device("meta"):
        adapter = PhotoVerseAdapter(
            ModelConfig(),
            feature_layers=(5, 11, 16, 21, 32),
            feature_width=1280,
            text_width=width,
            attentions=layers,
            lora=lora_layers(unet, ModelConfig()),
            fits=Fits(base_name="meta", base={}, image_encoder={}),
        )
    assert sum(p.numel() for p in adapter.visual_kv.parameters()) == visual_kv
    assert sum(p.numel() for p in adapter.lora.parameters()) == lora
    install(unet, adapter)
    trained = {id(p) for p in adapter.parameters()}
    attached = [p for p in unet.parameters() if id(p) in trained]
    assert sum(p.numel() for p in attached) == visual_kv + lora
    names = {name for name, p in unet.named_parameters(remove_duplicate=False) if id(p) in trained}
    assert len(names) == 16 * (2 + 4)
    assert all(".attn2." in name for name in names)


def test_an_adapter_of_another_unet_is_refused(base, adapter):
    with pytest.raises(ValueError, match="made for another UNet"):
        install(full_size_unet(SD15), adapter)
