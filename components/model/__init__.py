"""PhotoVerse on a frozen Stable Diffusion: features, adapters, S*, dual-branch attention, LoRA, weights.

Names are loaded when first used, so that whoever needs only the settings never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.model.adapters import normalize
    from components.model.attention import KeyValueCache, eq3_dual_attention
    from components.model.base import Base, load_base, load_extractor, load_pipeline, load_vae
    from components.model.concepts import PromptTokens, embed_prompts, encode_prompts, tokenize_prompts
    from components.model.config import ModelConfig
    from components.model.features import FeatureExtractor, pool_tokens
    from components.model.fits import Fits, weight_hashes
    from components.model.injection import LORA_NAME, install, installation, mend, set_lora_scale, uninstall
    from components.model.layers import cross_attentions, lora_layers
    from components.model.photoverse import PhotoVerseAdapter
    from components.model.prediction import Condition, PhotoVerseModel, Prediction
    from components.model.weights import (
        AdapterCard,
        adapter_hash,
        card_path,
        load_adapter,
        read_adapter_card,
        save_adapter,
    )

_HOME = {
    "AdapterCard": "weights",
    "Base": "base",
    "Condition": "prediction",
    "FeatureExtractor": "features",
    "Fits": "fits",
    "KeyValueCache": "attention",
    "LORA_NAME": "injection",
    "ModelConfig": "config",
    "PhotoVerseAdapter": "photoverse",
    "PhotoVerseModel": "prediction",
    "Prediction": "prediction",
    "PromptTokens": "concepts",
    "adapter_hash": "weights",
    "card_path": "weights",
    "cross_attentions": "layers",
    "embed_prompts": "concepts",
    "encode_prompts": "concepts",
    "eq3_dual_attention": "attention",
    "install": "injection",
    "installation": "injection",
    "load_adapter": "weights",
    "load_base": "base",
    "load_extractor": "base",
    "load_pipeline": "base",
    "lora_layers": "layers",
    "load_vae": "base",
    "mend": "injection",
    "normalize": "adapters",
    "pool_tokens": "features",
    "read_adapter_card": "weights",
    "save_adapter": "weights",
    "set_lora_scale": "injection",
    "tokenize_prompts": "concepts",
    "uninstall": "injection",
    "weight_hashes": "fits",
}

__all__ = [
    "AdapterCard",
    "Base",
    "Condition",
    "FeatureExtractor",
    "Fits",
    "KeyValueCache",
    "LORA_NAME",
    "ModelConfig",
    "PhotoVerseAdapter",
    "PhotoVerseModel",
    "Prediction",
    "PromptTokens",
    "adapter_hash",
    "card_path",
    "cross_attentions",
    "embed_prompts",
    "encode_prompts",
    "eq3_dual_attention",
    "install",
    "installation",
    "load_adapter",
    "load_base",
    "load_extractor",
    "load_pipeline",
    "lora_layers",
    "load_vae",
    "mend",
    "normalize",
    "pool_tokens",
    "read_adapter_card",
    "save_adapter",
    "set_lora_scale",
    "tokenize_prompts",
    "uninstall",
    "weight_hashes",
]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
