"""A base model that never changes: real architecture, tiny, weights written down as a formula.

Random generators and default initialisations may change with a library; a sine does not. Files under this
folder that belong to this base must load for ever.
"""

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

NAME = "frozen-base-1"


def by_formula(module: torch.nn.Module) -> torch.nn.Module:
    """Fills every parameter with a sine of its place, scaled like a usual initialisation."""
    for number, (name, parameter) in enumerate(sorted(module.named_parameters())):
        place = torch.arange(parameter.numel(), dtype=torch.float64)
        wave = torch.sin(place * 0.7310585 + number * 1.618034)
        is_norm = "norm" in name and parameter.ndim == 1 and name.endswith("weight")
        scale = 0.1 if parameter.ndim < 2 else (1.5 / parameter[0].numel()) ** 0.5
        values = 1 + 0.1 * wave if is_norm else scale * wave
        parameter.data = values.reshape(parameter.shape).float()
    return module.requires_grad_(False).eval()


def unet() -> UNet2DConditionModel:
    return by_formula(
        UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        )
    )


def text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=30,
        eos_token_id=31,
        pad_token_id=31,
    )
    return by_formula(CLIPTextModel(config))


def image_encoder() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return by_formula(CLIPVisionModelWithProjection(config))
