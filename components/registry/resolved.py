"""From a name and an alias to files: what a batch or a page needs to load the model that was promoted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core import TrackingConfig, sha256_file
from components.registry.package import read_package
from components.registry.store import Store


@dataclass(frozen=True)
class ResolvedModel:
    """One version of the registered model, its files at hand.

    Attributes:
        model_name: Name of the registered model.
        version: Its number; hand this one to workers, never an alias, which may move while they work.
        model_uri: `models:/<name>/<version>`.
        adapter: The adapter's safetensors file, its JSON beside it.
        adapter_sha256: Hash of that file.
        base: Folder or hub id of the base model.
        model: Values of the model config, `base` as above.
        face: Values of the face config.
        dials: Values of the dials that the model was judged with.
        folder: The package's folder, with the model card.
    """

    model_name: str
    version: str
    model_uri: str
    adapter: Path
    adapter_sha256: str
    base: str
    model: dict[str, Any]
    face: dict[str, Any]
    dials: dict[str, Any]
    folder: Path


def resolve(tracking: TrackingConfig, model_name: str, alias_or_version: str = "champion") -> ResolvedModel:
    """Looks the version up once and brings its files here (in place for a local store, else downloaded).

    Args:
        tracking: The registry.
        model_name: Name of the registered model.
        alias_or_version: An alias, a number, or a whole `models:/name@alias` or `models:/name/number`.

    Raises:
        ValueError: There is no such model or version, or it is not one of ours.
    """
    if alias_or_version.startswith("models:/"):
        model_name, alias_or_version = split_uri(alias_or_version)
    store = Store(tracking, model_name)
    number = str(store.version(alias_or_version).version)
    folder = store.files(number, "artifacts/package")
    package = read_package(folder)
    return ResolvedModel(
        model_name=model_name,
        version=number,
        model_uri=f"models:/{model_name}/{number}",
        adapter=package.adapter,
        adapter_sha256=sha256_file(package.adapter),
        base=package.base,
        model=package.model,
        face=package.face,
        dials=package.dials,
        folder=folder,
    )


def split_uri(uri: str) -> tuple[str, str]:
    """Returns (name, alias or version) of `models:/name@alias` or `models:/name/version`.

    Raises:
        ValueError: It is neither.
    """
    rest = uri.removeprefix("models:/")
    name, mark, wanted = rest.partition("@") if "@" in rest else rest.partition("/")
    if not (uri.startswith("models:/") and name and mark and wanted) or "/" in wanted:
        raise ValueError(f"{uri!r} names no model; expected models:/NAME@ALIAS or models:/NAME/VERSION")
    return name, wanted
