"""Strict configuration: one base class, YAML in and out, deep merge and fingerprints.

A setting is declared once, with its default and its bounds, in the component that uses it. Unknown keys,
wrong types and values out of range are refused with a message that names the key. Nothing here reads the
environment.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class StrictConfig(BaseModel):
    """Base of every `Config`: frozen, unknown keys refused, defaults validated too."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, source: str, told: bool = True) -> Self:
        """Builds the config from plain values.

        Args:
            values: Nested mapping of setting names to values.
            source: What the values came from, for the error message (a file name, "flow parameters").
            told: Whether the message repeats the values found; not where they are other people's.

        Raises:
            ValueError: One line per fault, each with the key, the value found and what is allowed.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"{source} is not a valid {cls.__name__}:\n{_fault_lines(error, told)}") from (
                error if told else None
            )


def _fault_lines(error: ValidationError, told: bool) -> str:
    lines = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part)[:40] for part in fault["loc"]) or "(top level)"
        found = f"; found {fault['input']!r:.200}" if told else ""
        lines.append(f"  {key}: {fault['msg']}{found}")
    return "\n".join(lines)


def deep_merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with `override` laid over it; nested mappings merge, everything else is replaced."""
    merged = dict(base)
    for key, value in override.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = deep_merge(below, value)
        merged[key] = value
    return merged


def load_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping.

    Raises:
        ValueError: The file is missing, is not YAML, or does not hold a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"no config file at {path}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of settings, found {type(values).__name__}")
    return values


def dump_yaml(config: BaseModel) -> str:
    """Returns the config as YAML, keys in the order of their declaration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def fingerprint(*parts: Any) -> str:
    """Returns 16 hex digits that identify JSON-like values or pydantic models, whatever their key order."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
