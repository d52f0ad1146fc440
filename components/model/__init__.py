"""PhotoVerse on a frozen Stable Diffusion: features, adapters, S*, dual-branch attention, LoRA, weights."""

from components.model.adapters import normalize
from components.model.attention import KeyValueCache, eq3_dual_attention
from components.model.base import Base, load_base, load_extractor, load_pipeline, load_vae
from components.model.concepts import PromptTokens, embed_prompts, encode_prompts, tokenize_prompts
from components.model.config import ModelConfig
from components.model.features import FeatureExtractor, pool_tokens
from components.model.fits import Fits, weight_hashes
from components.model.install import LORA_NAME, install, installation, mend, set_lora_scale, uninstall
from components.model.photoverse import PhotoVerseAdapter, cross_attentions
from components.model.prediction import PhotoVerseModel, Prediction
from components.model.weights import AdapterCard, load_adapter, read_adapter_card, save_adapter

__all__ = [
    "LORA_NAME",
    "AdapterCard",
    "Base",
    "FeatureExtractor",
    "Fits",
    "KeyValueCache",
    "ModelConfig",
    "PhotoVerseAdapter",
    "PhotoVerseModel",
    "Prediction",
    "PromptTokens",
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
