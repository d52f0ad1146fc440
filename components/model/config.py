"""Settings of the PhotoVerse model: which base, which features, which adapters.

Every value that the paper leaves open is a named switch here, with its default and the reason for it.
Sizes (widths, depths, resolutions) are never settings: they are read from the base model that is loaded.
"""

from typing import Literal

from pydantic import Field, field_validator

from components.core import StrictConfig

# ELITE (arXiv 2302.13848) reads layers 4, 8, 12, 16 and 24 of a 24-layer ViT-L; the same fractions suit any
# depth.
ELITE_FRACTIONS = (4 / 24, 8 / 24, 12 / 24, 16 / 24, 1.0)


class ModelConfig(StrictConfig):
    """What PhotoVerse is made of. PAPER = PhotoVerse (arXiv 2309.05793).

    Attributes:
        base: Folder or hub id of a Stable Diffusion in the diffusers layout. The paper does not name its
            version.
        image_encoder: Folder or hub id of a CLIP vision model; None takes `image_encoder/` of the base. The
            paper says CLIP and no more.
        feature_layers: Indices into the encoder's `hidden_states` (0 = embeddings, n = after layer n,
            negative from the end), shallow first; their number is m. None takes ELITE's fractions of the
            depth, because the paper says "as ELITE" and uses m = 5.
        patch_grid: Patch tokens are average-pooled to patch_grid x patch_grid before they are stored.
            Silent in the paper; 1 keeps a sample of five ViT-H layers at 26 KB instead of 3.3 MB. More
            keeps more of the layout.
        normalize_features: LayerNorm without weights on each stored token. Silent in the paper; shallow and
            deep layers differ in scale by an order of magnitude, and their adapters should not have to
            learn that.
        text_pooling: How the tokens of a layer make one pseudo-word. "cls_mean": one MLP for CLS, one for
            patches, averaged, as ELITE does; "cls": CLS alone.
        visual_pooling: How the tokens of a layer make visual tokens. "cls_mean" and "cls" as above, one a
            layer; "patches": every token (CLS and each cell of the grid) becomes a visual token.
        visual_tokens: "each" keeps the layers' tokens apart; "mean" averages over layers. "each" is the
            default: with a single visual token the softmax over it is 1 whatever the query, and K_S learns
            nothing.
        adapter_blocks: Blocks of two linear layers in an adapter; two, as the paper says.
        adapter_width: Width inside an adapter; None takes the width of the text encoder (1024 for SD 2.x: the
            paper's "to 1024 dimensions").
        word_scale: "embedding" starts the pseudo-words with the mean and spread of the text encoder's own
            token embeddings, so that the frozen encoder sees plausible words from step 0; "plain" leaves
            PyTorch's default.
        visual_kv_start: "text" copies W_k, W_v of the text branch into W_k^S, W_v^S as IP-Adapter does, for
            f lives in the same space; "random" is PyTorch's default. Silent in the paper.
        lora_rank: Rank of the LoRA part; silent in the paper. 4 is the default of diffusers' LoRA training
            scripts.
        lora_targets: Linear layers of each cross-attention that get a LoRA; K and V alone, as the paper says.
            "all": every linear layer and convolution in the UNet's blocks, a departure.
        kept_words: Which m' <= m pseudo-words stay at inference with m' < m. "deep" keeps those of the
            deepest layers, which carry the concept (ELITE Sec. 3.1); "shallow" the others. Silent in the
            paper.
    """

    base: str = "components/portraits/base"
    image_encoder: str | None = None
    feature_layers: tuple[int, ...] | None = None
    patch_grid: int = Field(default=1, ge=1, le=64)
    normalize_features: bool = True
    text_pooling: Literal["cls_mean", "cls"] = "cls_mean"
    visual_pooling: Literal["cls_mean", "cls", "patches"] = "cls_mean"
    visual_tokens: Literal["each", "mean"] = "each"
    adapter_blocks: int = Field(default=2, ge=1, le=8)
    adapter_width: int | None = Field(default=None, ge=1)
    word_scale: Literal["embedding", "plain"] = "embedding"
    visual_kv_start: Literal["text", "random"] = "text"
    lora_rank: int = Field(default=4, ge=1, le=256)
    lora_targets: tuple[Literal["to_q", "to_k", "to_v", "to_out.0"], ...] | Literal["all"] = ("to_k", "to_v")
    kept_words: Literal["deep", "shallow"] = "deep"

    @field_validator("feature_layers", "lora_targets")
    @classmethod
    def _distinct(cls, values: tuple[object, ...] | str | None) -> tuple[object, ...] | str | None:
        if isinstance(values, tuple) and (not values or len(set(values)) != len(values)):
            raise ValueError("must name at least one layer, each once")
        return values

    def layers(self, depth: int) -> tuple[int, ...]:
        """Returns the indices into `hidden_states` of an encoder with `depth` layers, shallow first.

        Raises:
            ValueError: An index is outside the encoder, or two indices mean the same layer.
        """
        asked = self.feature_layers
        if asked is None:
            return tuple(sorted({max(1, round(fraction * depth)) for fraction in ELITE_FRACTIONS}))
        layers = tuple(index + depth + 1 if index < 0 else index for index in asked)
        if any(not 0 <= index <= depth for index in layers) or len(set(layers)) != len(layers):
            raise ValueError(
                f"feature_layers {asked} do not fit an image encoder of {depth} layers (0..{depth})"
            )
        return tuple(sorted(layers))
