"""Eq. (3) against float64 written from the equation, and against diffusers' IP-Adapter attention."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, IPAdapterAttnProcessor2_0

from components.model import KeyValueCache, eq3_dual_attention
from components.model.attention import DualAttnProcessor

B, H, L, N, M, HEAD, TEXT = 3, 4, 49, 13, 5, 8, 24


def plain_attention(q, k, v):
    """softmax(Q K^T / sqrt(d)) V, key by key, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    scores = torch.einsum("bhld,bhnd->bhln", q, k) / q.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return torch.einsum("bhln,bhnd->bhld", weights, v)


@pytest.fixture
def qkv():
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, H, L, HEAD)] + [(B, H, N, HEAD)] * 2 + [(B, H, M, HEAD)] * 2
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize(("gamma", "sigma"), [(1, 1), (2, 0), (0, 2), (0.7, 1.3)])
def test_eq3_is_the_weighted_sum_of_two_attentions(qkv, gamma, sigma, dtype, tolerance):
    q, k_t, v_t, k_s, v_s = [tensor.to(dtype) for tensor in qkv]
    expected = gamma * plain_attention(q, k_t, v_t) + sigma * plain_attention(q, k_s, v_s)
    ours = eq3_dual_attention(q, k_t, v_t, k_s, v_s, gamma, sigma)
    torch.testing.assert_close(ours.double(), expected, atol=tolerance, rtol=0)


def test_eq3_weights_may_differ_by_sample(qkv):
    q, k_t, v_t, k_s, v_s = qkv
    gamma, sigma = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 2.0])
    ours = eq3_dual_attention(q, k_t, v_t, k_s, v_s, gamma.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1))
    text, visual = plain_attention(q, k_t, v_t), plain_attention(q, k_s, v_s)
    expected = torch.stack([text[0] + visual[0], 2 * text[1], 2 * visual[2]])
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=0)


def make_attention() -> tuple[Attention, DualAttnProcessor]:
    torch.manual_seed(0)
    attn = Attention(query_dim=H * HEAD, cross_attention_dim=TEXT, heads=H, dim_head=HEAD, bias=False)
    ours = DualAttnProcessor(
        torch.nn.Linear(TEXT, H * HEAD, bias=False), torch.nn.Linear(TEXT, H * HEAD, bias=False)
    )
    return attn.eval(), ours


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(B, L, H * HEAD, generator=generator),
        torch.randn(B, N, TEXT, generator=generator),
        torch.randn(B, M, TEXT, generator=generator),
    )


def ip_adapter_attention(attn, ours, pixels, text, visual, scale=1.0, masks=None):
    theirs = IPAdapterAttnProcessor2_0(H * HEAD, TEXT, num_tokens=(M,), scale=scale)
    theirs.to_k_ip[0].weight, theirs.to_v_ip[0].weight = ours.to_k.weight, ours.to_v.weight
    attn.set_processor(theirs)
    return attn(pixels, encoder_hidden_states=(text, [visual]), ip_adapter_masks=masks)


@pytest.mark.parametrize("sigma", [1.0, 0.4, 2.0])
def test_the_processor_agrees_with_diffusers_ip_adapter_given_the_same_weights(sigma):
    attn, ours = make_attention()
    pixels, text, visual = inputs()
    expected = ip_adapter_attention(attn, ours, pixels, text, visual, sigma)
    attn.set_processor(ours)
    found = attn(
        pixels,
        encoder_hidden_states=text,
        visual_tokens=visual,
        gamma=torch.ones(B),
        sigma=torch.full((B,), sigma),
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_regions_agree_with_diffusers_ip_adapter_masks():
    attn, ours = make_attention()
    pixels, text, visual = inputs()
    two = torch.stack([visual, torch.randn(visual.shape, generator=torch.Generator().manual_seed(2))], 1)
    masks = torch.zeros(1, 2, 7, 7)
    masks[:, 0, :, :4], masks[:, 1, :, 4:] = 1, 1
    expected = ip_adapter_attention(attn, ours, pixels, text, two, masks=[masks])
    attn.set_processor(ours)
    found = attn(
        pixels,
        encoder_hidden_states=text,
        visual_tokens=two.flatten(1, 2),
        regions=masks.expand(B, -1, -1, -1),
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("off", [{}, {"gamma": torch.ones(B), "sigma": torch.zeros(B)}])
def test_off_is_diffusers_own_attention_bit_for_bit(off):
    attn, ours = make_attention()
    pixels, text, visual = inputs()
    attn.set_processor(AttnProcessor2_0())
    expected = attn(pixels, encoder_hidden_states=text)
    attn.set_processor(ours)
    kwargs = off | ({"visual_tokens": visual} if off else {})
    assert torch.equal(attn(pixels, encoder_hidden_states=text, **kwargs), expected)


def test_masked_tokens_do_not_count():
    attn, ours = make_attention()
    pixels, text, visual = inputs()
    attn.set_processor(ours)
    mask = torch.tensor([[True] * 3 + [False] * 2] * B)
    junk = torch.cat([visual[:, :3], torch.full_like(visual[:, 3:], 1e3)], 1)
    masked = attn(pixels, encoder_hidden_states=text, visual_tokens=junk, visual_mask=mask)
    short = attn(pixels, encoder_hidden_states=text, visual_tokens=visual[:, :3])
    torch.testing.assert_close(masked, short, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_cache_changes_nothing_and_notices_other_prompts_and_persons():
    attn, ours = make_attention()
    pixels, text, visual = inputs()
    attn.set_processor(ours)

    def run(text, visual, cache=None):
        return attn(pixels, encoder_hidden_states=text, visual_tokens=visual, kv_cache=cache)

    cache = KeyValueCache()
    for _ in range(3):
        assert torch.equal(run(text, visual, cache), run(text, visual))
    other_text, other_visual = text + 1, visual + 1
    assert torch.equal(run(other_text, visual, cache), run(other_text, visual))
    assert torch.equal(run(text, other_visual, cache), run(text, other_visual))
    visual += 1  # in place: the same tensor, another person
    assert torch.equal(run(text, visual, cache), run(text, visual))


@torch.no_grad()
def test_the_cache_saves_the_projections():
    attn, ours = make_attention()
    pixels, text, visual = inputs()
    attn.set_processor(ours)
    calls = []
    for linear in (attn.to_k, attn.to_v, ours.to_k, ours.to_v):
        linear.register_forward_hook(lambda *_: calls.append(1))
    cache = KeyValueCache()
    for _ in range(3):
        attn(pixels, encoder_hidden_states=text, visual_tokens=visual, kv_cache=cache)
    assert len(calls) == 4


def test_the_cache_keeps_nothing_while_gradients_are_recorded():
    attn, ours = make_attention()
    pixels, text, visual = inputs()
    attn.set_processor(ours)
    cache = KeyValueCache()
    for _ in range(2):
        attn(pixels, encoder_hidden_states=text, visual_tokens=visual, kv_cache=cache).sum().backward()
    assert ours.to_v.weight.grad is not None
