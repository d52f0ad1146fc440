"""Small true things for tests: a base model of a few channels, a handful of drawn people."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.portraits.config import (
    BaseArchitecture,
    FaceNetArchitecture,
    PortraitsConfig,
    TextArchitecture,
    UnetArchitecture,
    VaeArchitecture,
    VisionArchitecture,
)

if TYPE_CHECKING:
    from components.model import ModelConfig

TINY = BaseArchitecture(
    unet=UnetArchitecture(block_channels=(16, 32), attention_levels=(True, True), heads=2, norm_groups=8),
    vae=VaeArchitecture(block_channels=(8, 8, 16), latent_channels=8, norm_groups=4),
    text=TextArchitecture(width=32, layers=2, heads=2),
    vision=VisionArchitecture(width=32, layers=3, heads=2, patch=16),
    face=FaceNetArchitecture(identity_channels=(8, 8, 16), judge_channels=(4, 8, 8, 16), embedding=32),
)


def tiny_base(folder: Path, config: BaseArchitecture = TINY) -> Path:
    """An untrained base in the standard layout: 64 px pictures, 8 x 16 x 16 latents, quick to load."""
    from components.portraits.architecture import create_base

    if not (folder / "model_index.json").exists():
        create_base(folder, config)
    return folder


def untrained_adapter(path: Path, model: "ModelConfig", lora_std: float = 0.0, **about: Any) -> Path:
    """The file of an adapter that nobody has trained; with `lora_std` its LoRA does something too."""
    import torch

    from components.model import PhotoVerseAdapter, load_base, save_adapter

    base = load_base(model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, model)
        for name, parameter in adapter.named_parameters():
            if lora_std and name.endswith(".b"):
                torch.nn.init.normal_(parameter, std=lora_std)
    save_adapter(adapter, path, {"run_name": "a-test"} | about)
    return path


def drawn_people(folder: Path, people: int = 6, views: int = 2) -> Path:
    """A labelled folder of drawn people: half train, a quarter each (at least one) in the other splits."""
    from components.core import RuntimeConfig
    from components.portraits import draw_people

    others = max(people // 4, 1)
    config = PortraitsConfig(
        train_people=people - 2 * others,
        validation_people=others,
        heldout_people=others,
        train_views=views,
        validation_views=views,
        heldout_views=views,
    )
    draw_people(config=config, runtime=RuntimeConfig(num_cpus=1), folder=folder)
    return folder
