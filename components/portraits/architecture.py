"""Writes a whole base model with random weights, of any size, in the standard diffusers folder layout.

    model_index.json unet/ vae/ text_encoder/ tokenizer/ scheduler/ image_encoder/
    face_pack/{identity,judge}.onnx

The folder loads with stock `StableDiffusionPipeline.from_pretrained`. Training the parts is the work of
`pretrain/`; tests use tiny sizes as they are.
diffusers types its classes as plain objects, hence `Any` where one is returned.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from components.portraits.config import BaseArchitecture
from components.portraits.face_nets import export_onnx, identity_net, judge_net
from components.portraits.tokenizer import write_tokenizer

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def create_base(folder: Path, config: BaseArchitecture) -> None:
    """Writes an untrained base model.

    Args:
        folder: Where to write; made if missing, parts that exist are overwritten.
        config: All sizes, and the seed of the random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = write_tokenizer(folder / "tokenizer", config.text.length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        build_unet(config).save_pretrained(folder / "unet")
        build_vae(config).save_pretrained(folder / "vae")
        build_text_encoder(config, tokens).save_pretrained(folder / "text_encoder")
        build_image_encoder(config).save_pretrained(folder / "image_encoder")
        face = config.face
        export_onnx(
            identity_net(face.identity_channels, face.embedding), folder / "face_pack" / "identity.onnx"
        )
        export_onnx(judge_net(face.judge_channels, face.embedding), folder / "face_pack" / "judge.onnx")
    build_scheduler().save_pretrained(folder / "scheduler")
    _write_json(folder / "image_encoder" / "preprocessor_config.json", preprocessor(config))
    _write_json(folder / "model_index.json", MODEL_INDEX)


def build_unet(config: BaseArchitecture) -> Any:
    """The UNet: (B, C, h, w) latents, conditioned on (B, L, D_text)."""
    sizes = config.unet
    down = tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in sizes.attention_levels)
    up = tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(sizes.attention_levels))
    return UNet2DConditionModel(
        sample_size=config.latent_size,
        in_channels=config.vae.latent_channels,
        out_channels=config.vae.latent_channels,
        block_out_channels=sizes.block_channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=sizes.layers_per_block,
        cross_attention_dim=config.text.width,
        attention_head_dim=sizes.heads,  # diffusers reads this as the number of heads
        norm_num_groups=sizes.norm_groups,
    )


def build_vae(config: BaseArchitecture) -> Any:
    """The autoencoder; `scaling_factor` is measured when it is trained."""
    sizes = config.vae
    levels = len(sizes.block_channels)
    return AutoencoderKL(
        sample_size=config.picture_size,
        latent_channels=sizes.latent_channels,
        block_out_channels=sizes.block_channels,
        layers_per_block=sizes.layers_per_block,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=sizes.norm_groups,
        mid_block_add_attention=sizes.mid_block_attention,
        scaling_factor=1.0,
        force_upcast=False,
    )


def build_text_encoder(config: BaseArchitecture, tokens: int) -> CLIPTextModel:
    """The text tower. Its pooled output is the contrastive text embedding: it has no projection."""
    sizes = config.text
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokens,
            hidden_size=sizes.width,
            intermediate_size=4 * sizes.width,
            projection_dim=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            max_position_embeddings=sizes.length,
            bos_token_id=tokens - 2,
            eos_token_id=tokens - 1,
            pad_token_id=tokens - 1,
        )
    )


def build_image_encoder(config: BaseArchitecture) -> CLIPVisionModelWithProjection:
    """The image tower, projected to the text width."""
    sizes = config.vision
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=sizes.width,
            intermediate_size=4 * sizes.width,
            projection_dim=config.text.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            image_size=config.picture_size,
            patch_size=sizes.patch,
        )
    )


def build_scheduler() -> Any:
    """DDIM, v-prediction, zero terminal SNR: else the starting noise leaks into colours."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def preprocessor(config: BaseArchitecture) -> dict:
    """`preprocessor_config.json` of the image encoder: pictures at its own size, RGB to [-1, 1]."""
    side = config.picture_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_convert_rgb": True,
    }


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
