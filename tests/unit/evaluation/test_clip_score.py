"""CLIP-T against transformers' own forward pass of the same small CLIP."""

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from components.evaluation.clip_score import load_clip
from components.model import ModelConfig

BASE = "components/portraits/base"
WORDS = ["a photo of a man with glasses", "a red background"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole CLIP of two thin towers with projections, stored as a hub's would be."""
    path, tokenizer = tmp_path_factory.mktemp("clip"), CLIPTokenizer.from_pretrained(f"{BASE}/tokenizer")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIPModel(
            CLIPConfig(
                text_config=tower | words | ends,
                vision_config=tower | {"image_size": 48, "patch_size": 12},
                projection_dim=24,
            )
        )
    clip.save_pretrained(path)
    tokenizer.save_pretrained(path)
    CLIPImageProcessor(
        size={"shortest_edge": 48}, crop_size=48, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]
    ).save_pretrained(path)
    return path


@pytest.mark.parametrize(("side", "tolerance"), [(48, 1e-5), (96, 0.02)])
def test_a_whole_clip_says_what_transformers_makes_it_say(folder, side, tolerance):
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8))
    clip, processor = CLIPModel.from_pretrained(folder).eval(), CLIPImageProcessor.from_pretrained(folder)
    tokens = CLIPTokenizer.from_pretrained(folder)(WORDS, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = clip(pixel_values=processor(pictures, return_tensors="pt").pixel_values, **tokens)
    scorer = load_clip(str(folder), ModelConfig(base=BASE))
    assert scorer.name == str(folder)
    assert np.abs(scorer.texts(WORDS) - wanted.text_embeds.numpy()).max() < 1e-5
    assert np.abs(scorer.images(pictures) - wanted.image_embeds.numpy()).max() < tolerance


def test_none_measures_nothing():
    assert load_clip(None, ModelConfig(base=BASE)) is None
