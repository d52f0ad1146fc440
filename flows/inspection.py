"""`photoverse inspect`: what a picture says of its making, in words or as JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.inference import Inspection

STATES = {
    "trusted": "valid, by a signer on C2PA's trust list",
    "valid": "unchanged since it was signed; no trust list knows the signer",
    "invalid": "NOT valid: the file was changed, or the signature is damaged",
}


def inspect_one(picture: Path, key: str | None = None, as_json: bool = False) -> str:
    """Returns what was found.

    Args:
        picture: A PNG or JPEG file.
        key: Of the mark; None takes the default.
        as_json: For programs.

    Raises:
        ValueError: It is no picture.
    """
    from components.inference import inspect_picture

    found = inspect_picture(picture, key) if key else inspect_picture(picture)
    if as_json:
        facts = asdict(found) | {"watermarked": found.watermarked, "ours": found.ours}
        return json.dumps(facts, indent=2, sort_keys=True)
    return "\n".join(f"{name:<20}{value}" for name, value in _lines(found))


def _lines(found: "Inspection") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = [("drawn by PhotoVerse", "yes" if found.ours else "nothing in it says so")]
    recipe = found.recipe
    if recipe is None:
        lines.append(("recipe", "none"))
    else:
        lines.append(("AI-generated", "yes" if recipe.get("ai_generated") else "not stated"))
        names = ("model", "adapter_sha256", "base", "seed", "prompt", "negative_prompt", "prompt_sha256")
        lines += [(name, recipe[name]) for name in names if recipe.get(name) not in (None, "")]
        dials = {name: value for name, value in recipe.get("dials", {}).items() if value not in (None, [])}
        lines.append(("dials", ", ".join(f"{name} {value}" for name, value in dials.items())))
    lines.append(("digital source type", (found.source_type or "none").rpartition("/")[2]))
    mark = "found" if found.watermarked else "not found"
    score = f"score {found.watermark_score:.1f}, from {found.threshold} on it is there"
    lines.append(("mark in the pixels", f"{mark} ({score})"))
    signed = found.credentials
    if signed is None:
        return [*lines, ("content credentials", "none")]
    lines.append(("content credentials", STATES.get(signed["state"], signed["state"])))
    return [*lines, ("signer", signed["issuer"] or "unknown")]
