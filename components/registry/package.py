"""What a registered model is made of, as one folder.

adapter/          adapter.safetensors and adapter.json
base/             the base model, where it is small; else settings.yaml has its name, adapter.json its hash
settings.yaml     model and face settings, the dials it was judged with, serving limits
evaluation.json   the record it was judged by; training.json the one of its training
MODEL_CARD.md
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.core import (
    Checkpoint,
    EvaluationReport,
    fingerprint,
    load_yaml,
    sha256_file,
    write_text_atomic,
)
from components.registry.config import RegistryConfig, ServingLimits

if TYPE_CHECKING:
    from components.face import FaceConfig
    from components.model import ModelConfig

SCHEMA = 1
ADAPTER = Path("adapter") / "adapter.safetensors"


@dataclass(frozen=True)
class Package:
    """A package on disk.

    Attributes:
        folder: The package.
        adapter: The adapter's safetensors file, its JSON beside it.
        base: Folder or hub id of the base model.
        face: Values of the face config.
        model: Values of the model config, its `base` as above.
        dials: The model's own dials: those that it was judged with.
        limits: Limits of the served model.
    """

    folder: Path
    adapter: Path
    base: str
    face: dict[str, Any]
    model: dict[str, Any]
    dials: dict[str, Any]
    limits: ServingLimits


def package_fingerprint(
    config: RegistryConfig, model: "ModelConfig", face: "FaceConfig", checkpoint: Checkpoint
) -> str:
    """Returns the identity of what would be registered: weights, the base they fit, settings."""
    adapter = Path(checkpoint.adapter)
    card = adapter.with_suffix(".json")
    fits = json.loads(card.read_text(encoding="utf-8")).get("fits", {}) if card.is_file() else {}
    # A moved base is the same base: `fits` has its hash.
    fits.pop("base_name", None)
    settings = model.model_dump(mode="json") | {"base": None}
    return fingerprint(SCHEMA, sha256_file(adapter), fits, settings, face, config.limits)


def write_package(
    folder: Path,
    config: RegistryConfig,
    model: "ModelConfig",
    face: "FaceConfig",
    checkpoint: Checkpoint,
    report: EvaluationReport,
    dials: dict[str, Any],
    model_card: str,
) -> Path:
    """Writes the package into a new folder and returns it.

    Raises:
        ValueError: The adapter's weights or the JSON beside them are missing.
    """
    shutil.rmtree(folder, ignore_errors=True)
    source = Path(checkpoint.adapter)
    (folder / ADAPTER).parent.mkdir(parents=True)
    for file, name in ((source, ADAPTER), (source.with_suffix(".json"), ADAPTER.with_suffix(".json"))):
        if not file.is_file():
            raise ValueError(f"no adapter file {file}: an adapter is a .safetensors with its .json beside it")
        shutil.copyfile(file, folder / name)
    inside = _copy_base(Path(model.base), folder / "base", config.base_inside_mb)
    outside = str(Path(model.base).resolve()) if Path(model.base).is_dir() else model.base
    base = "base" if inside else outside  # relative to the package, or where it was when this was written
    settings = {
        "schema_version": SCHEMA,
        "base_inside": inside,
        "model": model.model_dump(mode="json") | {"base": base},
        "face": face.model_dump(mode="json"),
        "dials": dials,
        "limits": config.limits.model_dump(mode="json"),
    }
    write_text_atomic(folder / "settings.yaml", yaml.safe_dump(settings, sort_keys=False))
    report.save(folder / "evaluation.json")
    checkpoint.save(folder / "training.json")
    write_text_atomic(folder / "MODEL_CARD.md", model_card)
    return folder


def _copy_base(base: Path, target: Path, limit_mb: int) -> bool:
    """Copies a base folder up to the limit; says whether it did."""
    if not base.is_dir():
        return False
    files = [path for path in base.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    if sum(path.stat().st_size for path in files) > limit_mb * 1_000_000:
        return False
    for path in files:
        copy = target / path.relative_to(base)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return True


def read_package(folder: Path) -> Package:
    """Reads a package.

    Raises:
        ValueError: It is none, is of a newer schema, or a part is missing.
    """
    settings = load_yaml(folder / "settings.yaml")
    if settings.get("schema_version") != SCHEMA:
        found = settings.get("schema_version")
        raise ValueError(
            f"{folder} is a package of schema {found!r}; this version of photoverse reads {SCHEMA}"
        )
    base = str(folder / "base") if settings["base_inside"] else settings["model"]["base"]
    adapter = folder / ADAPTER
    if not adapter.is_file() or (settings["base_inside"] and not (folder / "base").is_dir()):
        raise ValueError(f"the package {folder} is not complete: the adapter or the base is missing")
    return Package(
        folder=folder,
        adapter=adapter,
        base=base,
        face=settings["face"],
        model=settings["model"] | {"base": base},
        dials=settings["dials"],
        limits=ServingLimits.parse(settings["limits"], source="settings.yaml"),
    )
