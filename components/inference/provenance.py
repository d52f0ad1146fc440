"""What made a picture, written into the picture: PNG text chunks that survive copying the file."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from components.core import write_bytes_atomic
from components.inference.config import Dials

KEY = "photoverse"
NOTICE = "AI-generated: drawn by PhotoVerse, a generative model, from a photo of a person; not a photograph."


def recipe(
    *,
    prompt: str,
    seed: int,
    dials: Dials,
    adapter_hash: str,
    base_hash: str,
    model: str = "unregistered",
    negative_prompt: str = "",
    keep_prompt: bool = False,
) -> dict[str, Any]:
    """Returns what a picture is made of.

    Args:
        prompt: Only its hash is kept, unless `keep_prompt`: prompts of others may be private.
        seed: Seed of this picture.
        dials: As used.
        adapter_hash: SHA-256 of the adapter.
        base_hash: Identity of the base model.
        model: Version in the registry, e.g. "models:/photoverse/3".
        negative_prompt: As used; kept like the prompt.
        keep_prompt: Whether to write the prompts themselves.
    """
    facts: dict[str, Any] = {
        "ai_generated": True,
        "model": model,
        "adapter_sha256": adapter_hash,
        "base": base_hash,
        "seed": seed,
        "prompt_sha256": hashlib.sha256(f"{prompt}\0{negative_prompt}".encode()).hexdigest(),
        "dials": dials.model_dump(mode="json", exclude_defaults=False),
    }
    return facts | ({"prompt": prompt, "negative_prompt": negative_prompt} if keep_prompt else {})


def with_recipe(image: Image.Image, facts: dict[str, Any]) -> Image.Image:
    """Puts the recipe into an image's `info`, where `encode_png` and others find it."""
    image.info |= {"Comment": NOTICE, "Software": "PhotoVerse", KEY: json.dumps(facts, sort_keys=True)}
    return image


def encode_png(image: Image.Image) -> bytes:
    """Returns the image as a PNG file with its recipe."""
    chunks = PngInfo()
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str):
            chunks.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def save_png(image: Image.Image, path: Path) -> Path:
    """Writes the image with its recipe, atomically."""
    write_bytes_atomic(path, encode_png(image))
    return path


def read_recipe(path: Path) -> dict[str, Any]:
    """Returns the recipe that a picture carries; a ValueError if it has none."""
    with Image.open(path) as image:
        text = image.info.get(KEY)
    if text is None:
        raise ValueError(f"{path} carries no PhotoVerse recipe")
    return json.loads(text)
