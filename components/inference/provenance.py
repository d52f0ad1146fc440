"""What made a picture, written into the picture: text that every copy of the file keeps.

PNG and JPEG carry the same: the recipe, and as XMP the IPTC digital source type, by which search engines and
galleries know an AI-generated picture. Not inside: the mark in the pixels (`watermark.py`), the signature
(`credentials.py`).
"""

import hashlib
import io
import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from components.core import write_bytes_atomic
from components.inference.config import Dials

KEY = "photoverse"
SEAL = "photoverse-seal"  # in an image's `info`: what signs its file
XMP = "XML:com.adobe.xmp"  # the PNG chunk that XMP is kept in
NOTICE = "AI-generated: drawn by PhotoVerse, a generative model, from a photo of a person; not a photograph."
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_DESCRIPTION, _SOFTWARE = 0x010E, 0x0131  # EXIF tags
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:photoverse="urn:photoverse:1"
 xmp:CreatorTool="PhotoVerse" Iptc4xmpExt:DigitalSourceType={source} photoverse:recipe={recipe}/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


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


def source_type(facts: dict[str, Any]) -> str:
    """Returns the IPTC digital source type: drawn from nothing, or over a photo (image-to-image)."""
    over_a_photo = facts["dials"].get("strength") is not None
    return SOURCE_TYPES + (
        "compositeWithTrainedAlgorithmicMedia" if over_a_photo else "trainedAlgorithmicMedia"
    )


def with_recipe(image: Image.Image, facts: dict[str, Any], seal: Any = None) -> Image.Image:
    """Puts the recipe into an image's `info`, where `encode_png`, `encode_jpeg` and others find it.

    Args:
        image: Any picture.
        facts: See `recipe`.
        seal: Signs the file when it is written, see `credentials.py`; None leaves it unsigned.
    """
    text = json.dumps(facts, sort_keys=True)
    packet = _PACKET.format(source=quoteattr(source_type(facts)), recipe=quoteattr(text))
    image.info |= {"Comment": NOTICE, "Software": "PhotoVerse", KEY: text, XMP: packet}
    if seal is not None:
        image.info[SEAL] = seal
    return image


def encode_png(image: Image.Image) -> bytes:
    """Returns the image as a PNG file with its recipe."""
    chunks = PngInfo()
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str):
            chunks.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return _sealed(buffer.getvalue(), image, "image/png")


def encode_jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """Returns the image as a JPEG file with its recipe.

    Args:
        image: RGB.
        quality: 1 to 95.
    """
    exif = Image.Exif()
    exif[_DESCRIPTION], exif[_SOFTWARE] = image.info.get("Comment", ""), image.info.get("Software", "")
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, exif=exif, xmp=image.info.get(XMP, "").encode())
    return _sealed(buffer.getvalue(), image, "image/jpeg")


def _sealed(data: bytes, image: Image.Image, mime: str) -> bytes:
    seal = image.info.get(SEAL)
    return data if seal is None else seal.sign(data, mime, json.loads(image.info[KEY]))


def save_png(image: Image.Image, path: Path) -> Path:
    """Writes the image with its recipe, atomically."""
    write_bytes_atomic(path, encode_png(image))
    return path


def save_jpeg(image: Image.Image, path: Path) -> Path:
    """Writes the image with its recipe, atomically."""
    write_bytes_atomic(path, encode_jpeg(image))
    return path


def read_recipe(path: Path) -> dict[str, Any]:
    """Returns the recipe that a picture carries; a ValueError if it has none."""
    with Image.open(path) as image:
        facts = recipe_of(image)
    if facts is None:
        raise ValueError(f"{path} carries no PhotoVerse recipe")
    return facts


def recipe_of(image: Image.Image) -> dict[str, Any] | None:
    """Returns the recipe in an opened picture, None if it has none or one that nobody can read."""
    try:
        facts = json.loads(image.info.get(KEY) or _xmp_value(image, "photoverse:recipe") or "null")
    except json.JSONDecodeError:
        return None
    return facts if isinstance(facts, dict) else None


def source_type_of(image: Image.Image) -> str | None:
    """Returns the IPTC digital source type in an opened picture, None if it states none."""
    return _xmp_value(image, "Iptc4xmpExt:DigitalSourceType")


def _xmp_value(image: Image.Image, name: str) -> str | None:
    """Reads a property of the XMP, attribute or element. No XML parser: files come from anywhere."""
    packet = image.info.get(XMP) or image.info.get("xmp") or ""
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    found = re.search(rf"""{name}\s*=\s*(["'])(.*?)\1|<{name}>(.*?)</{name}>""", text, re.DOTALL)
    return unescape(found[2] or found[3] or "") if found else None
