"""One real training step of a full-size SD 2.1 UNet with random weights: about 5 GB, under a minute."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from components.model import (
    Fits,
    ModelConfig,
    PhotoVerseAdapter,
    PhotoVerseModel,
    cross_attentions,
    lora_layers,
)
from tests.full_size import SD21, filled, full_size_unet


@pytest.mark.slow
def test_a_step_of_sd21_gives_gradients_to_exactly_the_listed_parameters():
    unet = filled(full_size_unet(SD21))
    text = CLIPTextConfig(
        vocab_size=100, hidden_size=1024, num_hidden_layers=1, num_attention_heads=16, intermediate_size=1024
    )
    adapter = PhotoVerseAdapter(
        ModelConfig(),
        feature_layers=(5, 11, 16, 21, 32),
        feature_width=1280,
        text_width=1024,
        attentions=cross_attentions(unet),
        lora=lora_layers(unet, ModelConfig()),
        fits=Fits(base_name="random", base={}, image_encoder={}),
    )
    model = PhotoVerseModel(unet, CLIPTextModel(text), adapter)
    positions = torch.full((1, 77), -1)
    positions[0, 5:10] = torch.arange(5)
    prediction = model(
        torch.randn(1, 4, 32, 32),
        torch.tensor([500]),
        torch.randint(0, 100, (1, 77)),
        positions,
        torch.randn(1, 5, 2, 1280),
    )
    loss = prediction.noise_pred.square().mean() + prediction.p_f.abs().mean()
    (loss + sum(value.abs().mean() for value in prediction.visual_values)).backward()
    assert prediction.noise_pred.shape == (1, 4, 32, 32)
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    assert got == {f"adapter.{name}" for name, _ in adapter.named_parameters()}
    assert sum(p.numel() for p in adapter.visual_kv.parameters()) == 25_559_040
