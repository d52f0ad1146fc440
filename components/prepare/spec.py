"""Everything a worker needs to know, settled before any work: sizes, files, and the identity of the work.

A missing weight file is found here, in a second, and not by a worker after minutes.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core import StrictConfig, fingerprint, sha256_file
from components.face import FaceConfig, identity_onnx_path
from components.prepare.config import PrepareConfig

if TYPE_CHECKING:
    from components.model import ModelConfig  # torch, diffusers and peft: not for those who only find faces

VERSION = 2  # raise it when the same photo and settings give another sample
# Settings that change how fast, not what; and those whose effect is in the records of the photos.
WITHOUT_EFFECT = {
    *("max_reject_share", "face_workers", "face_gpus", "encode_workers"),
    *("sources", "person_similarity", "contact_sheet_samples"),
}


class PrepareSpec(StrictConfig):
    """The resolved settings of one run.

    Attributes:
        resolution: Side of the denoising target.
        identity_size: Side of the identity crop.
        identity_onnx: Path of the identity network.
        feature_shape: (m, T, D).
        latent_shape: (C, h, w).
        dtype: Of CLIP and VAE, as configured: "auto" is float32 on the CPU, float16 on a GPU (samples are
            float16).
        work: Identity of everything that a sample depends on, except the photo.
    """

    prepare: PrepareConfig
    face: FaceConfig
    resolution: int
    identity_size: int
    identity_onnx: str
    feature_shape: tuple[int, int, int]
    latent_shape: tuple[int, int, int]
    dtype: str
    work: str = ""


def resolve(
    config: PrepareConfig, face: FaceConfig, model: "ModelConfig", dtype: str = "auto"
) -> PrepareSpec:
    """Reads the sizes of the base model and the identity of its weights.

    Raises:
        ValueError: A part of the base or the identity network is missing, or the sizes do not fit.
    """
    unet, vae, vision = _part_configs(model)
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    resolution = config.resolution or _side(unet["sample_size"]) * factor
    if resolution % factor:
        raise ValueError(f"prepare.resolution {resolution} must be a multiple of {factor}, the VAE's factor")
    layers = model.layers(vision["num_hidden_layers"])
    spec = PrepareSpec(
        prepare=config,
        face=face,
        resolution=resolution,
        identity_size=config.identity_size or vision["image_size"],
        identity_onnx=str(identity_onnx_path(face, Path(model.base))),
        feature_shape=(len(layers), 1 + model.patch_grid**2, vision["hidden_size"]),
        latent_shape=(vae["latent_channels"], resolution // factor, resolution // factor),
        dtype=dtype,
    )
    return spec.model_copy(update={"work": _work(spec, model, layers)})


def _part_configs(model: "ModelConfig") -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Returns the configs of UNet, VAE and image encoder without loading weights."""
    from transformers import CLIPVisionConfig

    try:
        unet, vae = (_read_json(model.base, f"{part}/config.json") for part in ("unet", "vae"))
        source, subfolder = _vision_source(model)
        vision = CLIPVisionConfig.from_pretrained(source, subfolder=subfolder)
    except (OSError, ValueError) as error:
        raise ValueError(f"the base model {model.base!r} is not complete: {error}") from error
    return unet, vae, vision.to_dict()


def _read_json(source: str, name: str) -> dict[str, Any]:
    path = Path(source) / name
    if not Path(source).is_dir() and source.count("/") == 1:  # a hub id
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(source, name))
    return json.loads(path.read_text(encoding="utf-8"))


def _vision_source(model: "ModelConfig") -> tuple[str, str]:
    return (model.image_encoder, "") if model.image_encoder else (model.base, "image_encoder")


def _side(sample_size: int | list[int]) -> int:
    return sample_size if isinstance(sample_size, int) else int(sample_size[0])


def _work(spec: PrepareSpec, model: "ModelConfig", layers: tuple[int, ...]) -> str:
    settings = spec.prepare.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    face = spec.face.model_dump(mode="json", exclude={"identity_onnx", "pack", "segformer"})
    source, subfolder = _vision_source(model)
    weights = [weights_mark(spec.identity_onnx), weights_mark(str(Path(source) / subfolder))]
    weights += [weights_mark(str(Path(model.base) / "vae"))] if spec.prepare.encode_latents else []
    weights += [weights_mark(folder) for folder in (spec.face.pack, spec.face.segformer) if folder]
    sizes = [spec.resolution, spec.identity_size, list(layers), model.patch_grid, spec.dtype]
    return fingerprint("prepare", VERSION, settings, face, sizes, weights)


def weights_mark(source: str) -> str:
    """Returns the identity of a model file or folder by its contents; of a hub id, its name.

    Raises:
        ValueError: A local model folder holds no weights.
    """
    path = Path(source)
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        return source
    files = sorted(p for p in path.iterdir() if p.suffix in (".json", ".safetensors", ".onnx"))
    if not any(p.suffix in (".safetensors", ".onnx") for p in files):
        raise ValueError(f"no weights (*.safetensors, *.onnx) in {path}")
    return fingerprint([[p.name, sha256_file(p)] for p in files])
