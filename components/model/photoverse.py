"""The PhotoVerse adapter: everything that is trained, in one module, whatever UNet it is installed on.

Inside: the adapters, the visual K/V of every cross-attention and the LoRA; creating them to fit a base
model. Not inside: putting them into a UNet (`injection.py`), files (`weights.py`).

Legend: B batch, m layers, T tokens a layer, D width of the text encoder, C channels of a layer.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from components.model.adapters import AdapterStack, normalize
from components.model.config import ModelConfig
from components.model.fits import Fits
from components.model.layers import CrossAttention, LoraLayer, cross_attentions, lora_layers, plain


class LowRank(nn.Module):
    """dW = B A of one layer (LoRA): A starts random, B at zero, so that dW starts at zero."""

    def __init__(self, layer: LoraLayer) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(layer.a_shape))
        self.b = nn.Parameter(torch.zeros(layer.b_shape))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))


class VisualKV(nn.Module):
    """W_k^S and W_v^S of one cross-attention layer (PhotoVerse Sec. 3.3)."""

    def __init__(self, text_width: int, channels: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(text_width, channels, bias=False)
        self.to_v = nn.Linear(text_width, channels, bias=False)


class PhotoVerseAdapter(nn.Module):
    """Text adapters, image adapters, visual K/V and LoRA: exactly what PhotoVerse trains (Sec. 4.1).

    Args:
        config: The switches.
        feature_layers: Resolved indices into the image encoder's hidden states; their number is m.
        feature_width: Width of the image encoder.
        text_width: D.
        attentions: The UNet's cross-attention layers.
        lora: The UNet's layers that get a LoRA.
        fits: Identity of the base and the image encoder that this adapter belongs to.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        feature_layers: tuple[int, ...],
        feature_width: int,
        text_width: int,
        attentions: list[CrossAttention],
        lora: list[LoraLayer],
        fits: Fits,
    ) -> None:
        super().__init__()
        self.config, self.fits = config, fits
        self.loaded_sha256: str | None = (
            None  # of the file that the weights came from, while they are unchanged
        )
        self.feature_layers, self.feature_width, self.text_width = feature_layers, feature_width, text_width
        self.attentions, self.lora_layers = attentions, lora
        shape = (feature_width, config.adapter_width or text_width, text_width, config.adapter_blocks)
        self.text_adapters = AdapterStack(self.m, config.text_pooling, *shape)
        self.image_adapters = AdapterStack(self.m, config.visual_pooling, *shape)
        self.visual_kv = nn.ModuleDict(
            {layer.key: VisualKV(text_width, layer.channels) for layer in attentions}
        )
        self.lora = nn.ModuleDict({layer.key: LowRank(layer) for layer in lora})

    @property
    def m(self) -> int:
        """Number of feature layers, and of pseudo-words."""
        return len(self.feature_layers)

    @classmethod
    def create(
        cls, unet: Any, text_encoder: Any, image_encoder: Any, config: ModelConfig
    ) -> "PhotoVerseAdapter":
        """Makes an untrained adapter that fits a base model; on the UNet's device, in float32.

        Args:
            unet: `UNet2DConditionModel`, bare.
            text_encoder: `CLIPTextModel`.
            image_encoder: `CLIPVisionModelWithProjection`.
            config: The switches.

        Raises:
            ValueError: The UNet's cross-attention is not as wide as the text encoder, or a feature layer
                does not exist.
        """
        text_width = text_encoder.config.hidden_size
        if unet.config.cross_attention_dim != text_width:
            raise ValueError(
                f"the UNet's cross-attention is {unet.config.cross_attention_dim} wide, the text encoder "
                f"{text_width}: not parts of one base model"
            )
        adapter = cls(
            config,
            feature_layers=config.layers(image_encoder.config.num_hidden_layers),
            feature_width=image_encoder.config.hidden_size,
            text_width=text_width,
            attentions=cross_attentions(unet),
            lora=lora_layers(unet, config),
            fits=Fits.of(config.base, unet, text_encoder, image_encoder),
        )
        if config.visual_kv_start == "text":
            adapter._start_visual_kv(unet)
        if config.word_scale == "embedding":
            adapter.text_adapters.start_like(text_encoder.get_input_embeddings().weight.detach().cpu())
        return adapter.to(unet.device)

    @torch.no_grad()
    def _start_visual_kv(self, unet: nn.Module) -> None:
        """Copies W_k and W_v of the text branch."""
        for layer in self.attentions:
            attn: Any = unet.get_submodule(layer.name)
            visual: Any = self.visual_kv[layer.key]
            visual.to_k.weight.copy_(plain(attn.to_k).weight)
            visual.to_v.weight.copy_(plain(attn.to_v).weight)

    def _checked(self, features_BmTD: Tensor) -> Tensor:
        if features_BmTD.shape[-1] != self.feature_width:
            raise ValueError(
                f"features are {features_BmTD.shape[-1]} wide, the adapter reads {self.feature_width}: they "
                "come from another image encoder"
            )
        features = normalize(features_BmTD) if self.config.normalize_features else features_BmTD
        return features.to(next(self.parameters()).dtype)

    def text_words(self, features_BmTD: Tensor) -> Tensor:
        """Maps raw features (B, m, T, D_in) to p_f: (B, m, D), one pseudo-word a layer, shallow first."""
        return self.text_adapters(self._checked(features_BmTD)).squeeze(2)

    def visual_tokens(self, features_BmTD: Tensor) -> Tensor:
        """Maps raw features (B, m, T, D_in) to f: (B, N_f, D)."""
        tokens = self.image_adapters(self._checked(features_BmTD))
        return tokens.mean(dim=1) if self.config.visual_tokens == "mean" else tokens.flatten(1, 2)

    def visual_values(self, visual_tokens_BND: Tensor) -> list[Tensor]:
        """Returns V_S = W_v^S f of every cross-attention, (B, N_f, C) each: what Eq. (6) keeps small."""
        values = [self.visual_kv[layer.key] for layer in self.attentions]
        return [layer.to_v(visual_tokens_BND) for layer in values if isinstance(layer, VisualKV)]

    def keep_words(self, words_mD: Tensor, m: int | None) -> Tensor:
        """Keeps m' of the pseudo-words (..., m, D) of a person, in their order (switch `kept_words`).

        Raises:
            ValueError: m' is not in 1..m.
        """
        total = words_mD.shape[-2]
        if m is None:
            return words_mD
        if not 1 <= m <= total:
            raise ValueError(f"m = {m} pseudo-words asked for; this person has {total} (allowed: 1..{total})")
        return words_mD[..., total - m :, :] if self.config.kept_words == "deep" else words_mD[..., :m, :]

    def low_ranks(self) -> Iterator[tuple[LoraLayer, LowRank]]:
        """Yields each layer that has a LoRA, with its dW."""
        for layer in self.lora_layers:
            dw = self.lora[layer.key]
            assert isinstance(dw, LowRank)
            yield layer, dw

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Everything that is trained: all parameters of this module, and none beyond it."""
        return list(self.parameters())
