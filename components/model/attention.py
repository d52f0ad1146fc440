"""Dual-branch cross-attention: Eq. 3 as a function, and the attention processor that brings it into a UNet.

Legend: B batch, L queries (pixels), N keys (text or visual tokens), H heads, d width of a head, D width of
the text encoder, C channels of a layer, R resolution levels.

With no visual tokens, or sigma = 0 and gamma = 1, the processor gives what diffusers' `AttnProcessor2_0`
gives, bit for bit. The numbers travel by `cross_attention_kwargs`, the public way of every diffusers
pipeline:

- `visual_tokens` (B, N, D): f, made by the image adapters.
- `gamma`, `sigma` (B,) or (B, R): weights of the branches; with R columns, column r is for resolution level
  r (0 = finest).
- `visual_mask` (B, N) bool, optional: which tokens count; each row (and person) needs one that does.
- `regions` (B, P, h, w) in [0, 1], optional: where each of P persons may act; N is P equal groups.
- `texts`, one (B, L, D) a level, optional: p by resolution level, in place of `encoder_hidden_states`.
- `kv_cache` `KeyValueCache`, optional: keeps K and V over the denoising steps of one picture.
"""

import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def eq3_dual_attention(
    q_BHLd: Tensor,
    text_k_BHNd: Tensor,
    text_v_BHNd: Tensor,
    visual_k_BHNd: Tensor,
    visual_v_BHNd: Tensor,
    gamma: Tensor | float = 1.0,
    sigma: Tensor | float = 1.0,
    text_bias: Tensor | None = None,
    visual_bias: Tensor | None = None,
) -> Tensor:
    """O = gamma Attn(Q, K_T, V_T) + sigma Attn(Q, K_S, V_S): PhotoVerse Eq. (3).

    Args:
        q_BHLd: Q.
        text_k_BHNd: K_T of the text branch.
        text_v_BHNd: V_T of the text branch.
        visual_k_BHNd: K_S of the visual branch.
        visual_v_BHNd: V_S of the visual branch.
        gamma: Weight of the text branch: a number, or a tensor that broadcasts with (B, H, L, d).
        sigma: Weight of the visual branch, likewise.
        text_bias: Added to the text scores, or a bool mask of keys; broadcasts to (B, H, L, N).
        visual_bias: The same for the visual scores.

    Returns:
        (B, H, L, d).
    """
    text = F.scaled_dot_product_attention(q_BHLd, text_k_BHNd, text_v_BHNd, attn_mask=text_bias)
    visual = F.scaled_dot_product_attention(q_BHLd, visual_k_BHNd, visual_v_BHNd, attn_mask=visual_bias)
    return _times(gamma, text) + _times(sigma, visual)


def _times(weight: Tensor | float, values: Tensor) -> Tensor:
    """Weight x values, without the work where the weight is the number 1."""
    return values if isinstance(weight, float) and weight == 1.0 else weight * values


class KeyValueCache:
    """K and V of one picture's prompt and person, for they do not change over the denoising steps.

    An entry holds for the very tensors it was made from, unchanged; make a new cache for each call of a
    pipeline, for the weights behind K and V may change between calls. Nothing is kept while gradients are
    recorded.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[tuple[Tensor | None, ...], list[int], tuple[Tensor, Tensor]]] = {}

    def clear(self) -> None:
        """Forgets everything; call it when the weights behind K and V change within a picture."""
        self._kept.clear()

    def __call__(
        self, key: Any, make: Callable[..., tuple[Tensor, Tensor]], *sources: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns `make(*sources)`, or what it gave when it was called with these very tensors before."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make(*sources)
        if any(source is not None and source.is_inference() for source in sources):
            return make(*sources)  # such tensors do not tell whether they were changed
        versions = [source._version for source in sources if source is not None]
        kept = self._kept.get(key)
        if kept is not None and kept[1] == versions and all(map(operator.is_, kept[0], sources)):
            return kept[2]
        made = make(*sources)
        self._kept[key] = (sources, versions, made)
        return made


@dataclass
class VisualInputs:
    """What `cross_attention_kwargs` brought; see the head of the file."""

    visual_tokens: Tensor | None = None
    gamma: Tensor | float | None = None
    sigma: Tensor | float | None = None
    visual_mask: Tensor | None = None
    regions: Tensor | None = None
    texts: Sequence[Tensor] | None = None
    kv_cache: KeyValueCache | None = None

    def check(self, batch: int) -> None:
        """Refuses tensors of another batch size than the UNet's."""
        named = [(name, getattr(self, name)) for name in self.__dataclass_fields__]
        for name, value in [*named, *(("texts", text) for text in self.texts or ())]:
            if isinstance(value, Tensor) and value.ndim and value.shape[0] != batch:
                raise ValueError(
                    f"{name} is for {value.shape[0]} samples, but the UNet got {batch} (with guidance, pass "
                    "the unconditional half too; with several images a prompt, repeat each row)"
                )


class DualAttnProcessor(nn.Module):
    """Cross-attention of one UNet layer with PhotoVerse's visual branch beside the text branch.

    Args:
        to_k, to_v: W_k^S and W_v^S, (C, D) linear layers without bias, owned and trained by the adapter.
        level: Resolution level of the layer, 0 = finest.
    """

    def __init__(self, to_k: nn.Linear, to_v: nn.Linear, level: int = 0) -> None:
        super().__init__()
        self.to_k, self.to_v, self.level = to_k, to_v, level

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        visual_tokens: Tensor | None = None,
        gamma: Tensor | float | None = None,
        sigma: Tensor | float | None = None,
        visual_mask: Tensor | None = None,
        regions: Tensor | None = None,
        texts: Sequence[Tensor] | None = None,
        kv_cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Works as diffusers' processors do; the head of this file describes the last seven arguments."""
        visual = VisualInputs(visual_tokens, gamma, sigma, visual_mask, regions, texts, kv_cache)
        residual = hidden_states
        if texts is not None:
            encoder_hidden_states = texts[min(self.level, len(texts) - 1)]
        hidden_states, context, text_bias = _enter(
            attn, hidden_states, encoder_hidden_states, attention_mask, temb
        )
        q = _split_heads(attn.to_q(hidden_states), attn)
        if attn.norm_q is not None:
            q = attn.norm_q(q)
        out = self._attend(attn, q, context, text_bias, visual)
        return _leave(attn, out.transpose(1, 2).flatten(2).to(q.dtype), residual)

    def _attend(
        self, attn: Any, q: Tensor, context: Tensor, text_bias: Tensor | None, visual: VisualInputs
    ) -> Tensor:
        """The two branches and their weighted sum, (B, H, L, d)."""
        visual.check(q.shape[0])
        text_k, text_v, gamma = self._branch(
            "text", lambda source: _text_kv(attn, source), context, visual.gamma, q, visual.kv_cache
        )
        if visual.visual_tokens is None:
            return _times(gamma, F.scaled_dot_product_attention(q, text_k, text_v, attn_mask=text_bias))
        k, v, sigma = self._branch(
            "visual",
            lambda source: self._visual_kv(attn, source, q.dtype),
            visual.visual_tokens,
            visual.sigma,
            q,
            visual.kv_cache,
        )
        mask = None if visual.visual_mask is None else visual.visual_mask[:, None, None]
        if visual.regions is None:
            return eq3_dual_attention(q, text_k, text_v, k, v, gamma, sigma, text_bias, mask)
        text = _times(gamma, F.scaled_dot_product_attention(q, text_k, text_v, attn_mask=text_bias))
        return text + _times(sigma, _attend_in_regions(q, k, v, mask, visual.regions))

    def _branch(
        self,
        name: str,
        make: Callable[[Tensor], tuple[Tensor, Tensor]],
        source: Tensor,
        weight: Tensor | float | None,
        q: Tensor,
        cache: KeyValueCache | None,
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """K and V of a branch, and the weight that is still to be applied.

        With a cache, the weight goes into V once a picture instead of into Attn(Q, K, V) at each step:
        attention is linear in V.
        """
        if cache is None:
            return *make(source), self._weight(weight, q)
        if not isinstance(weight, Tensor):
            return *cache((self, name), lambda tokens, _: make(tokens), source, None), self._weight(weight, q)

        def weighted(tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            k, v = make(tokens)
            return k, self._weight(weight, q) * v

        return *cache((self, name), weighted, source, weight), 1.0

    def _visual_kv(self, attn: Any, visual_tokens: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """K_S = W_k^S f, V_S = W_v^S f, split into heads, in the dtype of the queries."""
        tokens = visual_tokens.to(self.to_k.weight.dtype)
        return _split_heads(self.to_k(tokens), attn).to(dtype), _split_heads(self.to_v(tokens), attn).to(
            dtype
        )

    def _weight(self, weight: Tensor | float | None, q: Tensor) -> Tensor | float:
        """Gamma or sigma of this layer's level, shaped to broadcast with (B, H, L, d)."""
        if weight is None:
            return 1.0
        if not isinstance(weight, Tensor):
            return float(weight)
        of_level = weight[:, min(self.level, weight.shape[1] - 1)] if weight.ndim == 2 else weight
        return of_level.to(q).view(-1, 1, 1, 1)


class DeafProcessor:
    """Lets another processor (of a self-attention layer) run as it is, without our `cross_attention_kwargs`.

    diffusers hands them to every attention layer, and warns at each step where they are not declared.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        visual_tokens: Any = None,
        gamma: Any = None,
        sigma: Any = None,
        visual_mask: Any = None,
        regions: Any = None,
        texts: Any = None,
        kv_cache: Any = None,
    ) -> Tensor:
        """Calls the other processor; the last seven arguments are ignored."""
        more = {} if temb is None else {"temb": temb}  # not every processor of diffusers takes one
        return self.processor(attn, hidden_states, encoder_hidden_states, attention_mask, **more)


# diffusers asks for the signature at every call of every layer; building it anew each time costs more than
# the rest of a processor does.
for _processor in (DualAttnProcessor, DeafProcessor):
    _processor.__call__.__signature__ = inspect.signature(_processor.__call__)  # type: ignore


def _split_heads(tokens: Tensor, attn: Any) -> Tensor:
    """(B, N, C) -> (B, H, N, d)."""
    return tokens.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _text_kv(attn: Any, context: Tensor) -> tuple[Tensor, Tensor]:
    """K_T, V_T of the text branch, with whatever LoRA peft has put on the two layers."""
    if attn.norm_cross:
        context = attn.norm_encoder_hidden_states(context)
    k = _split_heads(attn.to_k(context), attn)
    return k if attn.norm_k is None else attn.norm_k(k), _split_heads(attn.to_v(context), attn)


def _attend_in_regions(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, regions: Tensor) -> Tensor:
    """Sum over persons of region x Attn(Q, K_S, V_S), as diffusers' IP-Adapter masks do it."""
    persons = regions.shape[1]
    if k.shape[2] % persons:
        raise ValueError(f"{k.shape[2]} visual tokens are not {persons} equal groups, one a region")
    masks = [None] * persons if mask is None else mask.chunk(persons, dim=-1)
    total: Tensor | None = None
    for person, (k_p, v_p, mask_p) in enumerate(
        zip(k.chunk(persons, 2), v.chunk(persons, 2), masks, strict=True)
    ):
        seen = F.scaled_dot_product_attention(q, k_p, v_p, attn_mask=mask_p)
        seen = seen * _region_of_queries(regions[:, person], q.shape[2])[:, None, :, None].to(seen)
        total = seen if total is None else total + seen
    assert total is not None
    return total


def _region_of_queries(region_Bhw: Tensor, queries: int) -> Tensor:
    """Resizes a region to the L pixels of a layer: (B, h, w) -> (B, L), keeping the picture's proportions."""
    height, width = region_Bhw.shape[-2:]
    rows = max(1, round((queries * height / width) ** 0.5))
    while queries % rows:
        rows -= 1
    size = (rows, queries // rows)
    return F.interpolate(region_Bhw[:, None].float(), size, mode="bilinear", align_corners=False).flatten(1)


def _enter(
    attn: Any,
    hidden_states: Tensor,
    context: Tensor | None,
    attention_mask: Tensor | None,
    temb: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Norms and reshapes as `AttnProcessor2_0`: pixels (B, L, C), context (B, N, D), bias of the scores."""
    if attn.spatial_norm is not None:
        hidden_states = attn.spatial_norm(hidden_states, temb)
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
    like = hidden_states if context is None else context
    if attention_mask is not None:
        attention_mask = attn.prepare_attention_mask(attention_mask, like.shape[1], like.shape[0])
        attention_mask = attention_mask.view(like.shape[0], attn.heads, -1, attention_mask.shape[-1])
    if attn.group_norm is not None:
        hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
    return hidden_states, hidden_states if context is None else context, attention_mask


def _leave(attn: Any, out: Tensor, residual: Tensor) -> Tensor:
    """Output projection, dropout and residual as `AttnProcessor2_0` does them."""
    out = attn.to_out[1](attn.to_out[0](out))
    if residual.ndim == 4:
        out = out.transpose(-1, -2).reshape(residual.shape)
    if attn.residual_connection:
        out = out + residual
    return out / attn.rescale_output_factor
