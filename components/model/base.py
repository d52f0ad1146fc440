"""Loading the frozen parts: Stable Diffusion in the diffusers layout and a CLIP image encoder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from components.model.config import ModelConfig
from components.model.features import CLIP_MEAN, CLIP_STD, FeatureExtractor


@dataclass
class Base:
    """The parts of a base model, frozen and in eval mode.

    Attributes:
        unet, vae, text_encoder, tokenizer, image_encoder: As diffusers and transformers load them.
        noise_scheduler: `DDPMScheduler` with the base's schedule and prediction type, for training.
        extractor: Features of the configured layers of the image encoder.
        name: Folder or hub id.
    """

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    image_encoder: Any
    noise_scheduler: Any
    extractor: FeatureExtractor
    name: str

    @property
    def folder(self) -> Path:
        """The base as a folder; only meaningful for a local base."""
        return Path(self.name)


def load_base(
    config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Base:
    """Loads every part of the base.

    Raises:
        ValueError: The base is a folder in which a part is missing, or is neither a folder nor a known hub
            id.
    """
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    extractor = load_extractor(config, device, dtype)
    return Base(
        unet=_part(UNet2DConditionModel, config.base, "unet", device, dtype),
        vae=_part(AutoencoderKL, config.base, "vae", device, dtype),
        text_encoder=_part(CLIPTextModel, config.base, "text_encoder", device, dtype),
        tokenizer=_part(CLIPTokenizer, config.base, "tokenizer"),
        image_encoder=extractor.image_encoder,
        noise_scheduler=_part(DDPMScheduler, config.base, "scheduler"),
        extractor=extractor,
        name=config.base,
    )


def load_vae(
    config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Any:
    """Loads the base's VAE alone, e.g. for preparation."""
    from diffusers import AutoencoderKL

    return _part(AutoencoderKL, config.base, "vae", device, dtype)


def load_extractor(
    config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> FeatureExtractor:
    """Loads the image encoder alone, e.g. for preparation, with the picture statistics that it states."""
    from transformers import CLIPVisionModelWithProjection

    source, subfolder = (
        (config.base, "image_encoder") if config.image_encoder is None else (config.image_encoder, "")
    )
    image_encoder = _part(CLIPVisionModelWithProjection, source, subfolder, device, dtype)
    mean, std = _picture_statistics(Path(source) / subfolder)
    layers = config.layers(image_encoder.config.num_hidden_layers)
    return FeatureExtractor(image_encoder, layers, config.patch_grid, mean, std)


def load_pipeline(
    config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Any:
    """Loads the base as diffusers' own `StableDiffusionPipeline`, without safety checker or progress bars."""
    from diffusers import StableDiffusionPipeline

    _check_folder(config.base, "")
    pipe = StableDiffusionPipeline.from_pretrained(
        config.base,
        dtype=dtype,
        use_safetensors=True,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _check_folder(source: str, subfolder: str) -> None:
    """Says plainly what is missing in a local base, before a loader takes the name for a hub id."""
    folder = Path(source)
    looks_local = folder.exists() or source.count("/") != 1 or source.startswith((".", "/", "~"))
    if looks_local and not (folder / subfolder).is_dir():
        raise ValueError(
            f"no base model part at {folder / subfolder}: expected a folder in the diffusers layout"
        )


def _part(
    cls: Any,
    source: str,
    subfolder: str,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Loads one part; models from safetensors alone, frozen and in eval mode."""
    _check_folder(source, subfolder)
    if device is None:
        return cls.from_pretrained(source, subfolder=subfolder)
    try:
        model = cls.from_pretrained(source, subfolder=subfolder, use_safetensors=True, dtype=dtype)
    except OSError as error:
        raise ValueError(f"cannot load {cls.__name__} from {source}/{subfolder}: {error}") from error
    return model.to(device).requires_grad_(False).eval()


def _picture_statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of RGB that an encoder's own preprocessor states; CLIP's else."""
    file = folder / "preprocessor_config.json"
    stated = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return tuple(stated.get("image_mean", CLIP_MEAN)), tuple(stated.get("image_std", CLIP_STD))
