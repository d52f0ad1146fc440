import pytest
import torch

from components.model import ModelConfig, PhotoVerseAdapter
from components.model.adapters import AdapterMLP, AdapterStack, LayerAdapter


def make(base, **switches):
    config = ModelConfig(base=base.name, **switches)
    return PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)


def test_an_adapter_is_two_blocks_of_two_linear_layers():
    mlp = AdapterMLP(1280, 1024, 1024, blocks=2)
    kinds = [type(layer).__name__ for layer in mlp]
    assert kinds == ["Linear", "LayerNorm", "LeakyReLU"] * 3 + ["Linear"]
    assert sum(p.numel() for p in mlp.parameters()) == 1280 * 1024 + 3 * 1024**2 + 4 * 1024 + 6 * 1024


def test_cls_mean_averages_cls_and_the_mean_of_patches():
    adapter = LayerAdapter("cls_mean", 6, 8, 4, 2)
    tokens = torch.randn(3, 5, 6)
    expected = (adapter.cls(tokens[:, 0]) + adapter.patches(tokens[:, 1:]).mean(1)) / 2
    torch.testing.assert_close(adapter(tokens)[:, 0], expected)


def test_patches_keeps_every_token_and_cls_reads_cls_alone():
    tokens = torch.randn(3, 5, 6)
    assert LayerAdapter("patches", 6, 8, 4, 2)(tokens).shape == (3, 5, 4)
    other = torch.cat([tokens[:, :1], torch.randn(3, 4, 6)], 1)
    cls = LayerAdapter("cls", 6, 8, 4, 2)
    torch.testing.assert_close(cls(tokens), cls(other))


def test_each_layer_has_its_own_adapter():
    stack = AdapterStack(3, "cls", 6, 8, 4, 2)
    features = torch.randn(2, 3, 2, 6)
    changed = features.clone()
    changed[:, 1] += 1
    differs = (stack(features) != stack(changed)).any(-1).any(-1).any(0)
    assert differs.tolist() == [False, True, False]


def test_words_start_with_mean_and_spread_of_the_token_embeddings(base):
    embeddings = base.text_encoder.get_input_embeddings().weight
    words = make(base, text_pooling="cls").text_words(torch.randn(512, 3, 2, 32) * 7 + 3)
    torch.testing.assert_close(
        words.mean((0, 1)), embeddings.mean(0), atol=0.3 * embeddings.std().item(), rtol=0
    )
    assert 0.5 < words.std() / embeddings.std() < 2


@pytest.mark.parametrize(
    ("switches", "tokens"),
    [
        ({}, 3),
        ({"visual_tokens": "mean"}, 1),
        ({"visual_pooling": "patches", "patch_grid": 2}, 15),
        ({"visual_pooling": "patches", "patch_grid": 2, "visual_tokens": "mean"}, 5),
    ],
)
def test_number_of_visual_tokens(base, switches, tokens):
    grid = switches.get("patch_grid", 1)
    features = torch.randn(2, 3, 1 + grid**2, 32)
    adapter = make(base, **switches)
    assert adapter.visual_tokens(features).shape == (2, tokens, 32)
    assert adapter.text_words(features).shape == (2, 3, 32)


def test_normalised_features_hide_scale_and_raw_ones_do_not(base):
    features = torch.randn(2, 3, 2, 32)
    scaled = features * 100
    normalising, raw = make(base), make(base, normalize_features=False)
    torch.testing.assert_close(
        normalising.text_words(features), normalising.text_words(scaled), atol=1e-4, rtol=0
    )
    assert not torch.allclose(raw.text_words(features), raw.text_words(scaled), atol=1e-4)


def test_float16_features_are_welcome(base):
    features = torch.randn(2, 3, 2, 32)
    adapter = make(base)
    torch.testing.assert_close(
        adapter.text_words(features.half()), adapter.text_words(features), atol=1e-3, rtol=0
    )


def test_features_of_another_encoder_are_refused(base):
    adapter = make(base)
    with pytest.raises(ValueError, match="features are 16 wide, the adapter reads 32"):
        adapter.text_words(torch.randn(1, 3, 2, 16))
    with pytest.raises(ValueError, match=r"expected features \(B, 3, T, D\)"):
        adapter.text_words(torch.randn(1, 4, 2, 32))


@pytest.mark.parametrize(("kept", "expected"), [("deep", [1, 2]), ("shallow", [0, 1])])
def test_fewer_words_keep_the_deepest_or_the_shallowest_in_order(base, kept, expected):
    words = torch.arange(3.0)[:, None].expand(3, 32)
    assert make(base, kept_words=kept).keep_words(words, 2)[:, 0].tolist() == expected


@pytest.mark.parametrize("m", [0, 4])
def test_more_words_than_there_are_is_an_error(adapter, m):
    with pytest.raises(ValueError, match=r"allowed: 1\.\.3"):
        adapter.keep_words(torch.zeros(3, 32), m)


def test_visual_kv_starts_as_a_copy_of_the_text_branch(base):
    adapter = make(base)
    for layer in adapter.attentions:
        attn = base.unet.get_submodule(layer.name)
        assert torch.equal(adapter.visual_kv[layer.key].to_v.weight, attn.to_v.weight)
    random = make(base, visual_kv_start="random")
    assert not torch.equal(random.visual_kv[layer.key].to_v.weight, attn.to_v.weight)
