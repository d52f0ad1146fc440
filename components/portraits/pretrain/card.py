"""Writes MODEL_CARD.md from `figures.json`: no figure in it is typed by hand."""

import json
from collections.abc import Callable
from pathlib import Path

from components.core import write_text_atomic
from components.portraits.pretrain.config import PretrainConfig

_HEAD = """# The portrait world's base model

A tiny Stable Diffusion ({size} px, {latent_channels} x {latent} x {latent} latents) with a CLIP pair, two
face recognition nets and an attribute classifier, trained on {people:,} drawn people (x
{views} pictures) of `components/portraits/world`. Nobody in its data exists. It is a bench for PhotoVerse,
not a picture maker for the world at
large: it knows drawn people on plain backgrounds and the words of their captions.

- Made by `make base-model` (`python -m components.portraits.pretrain`), {megabytes:.1f} MB in float16 (face
  nets float32).
{history}- Licence: Apache-2.0, as the code; the training pictures are CC0-1.0.
- Every figure is measured by `components/portraits/pretrain/measure.py` on people that no part was trained
  on, and stands in `figures.json` too. "goal" is what the project asks of a finished base.

| part | figure | measured | goal |
|---|---|---|---|
"""
_HISTORY = """- It goes on from the base before it: the UNet began with that one's weights, and parts
  that were not trained again (`figures.json` tells them by unchanged figures) learned from its people; what
  a face net said of their pictures was said by the net of that time.
"""
_Row = tuple[str, str, str, Callable[[float], str], str]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _plain(value: float) -> str:
    return f"{value:.2f}"


def _count(value: float) -> str:
    return f"{value:g}"


_ROWS: tuple[_Row, ...] = (
    ("vae", "VAE", "psnr", lambda v: f"{v:.1f} dB", "30 dB"),
    ("vae", "VAE: identity top-1 of 100 through it", "top1", _percent, "97%"),
    ("vae", "VAE: similarity of a face before and after", "similarity", _plain, ""),
    ("clip", "CLIP: picture to caption, top-1 of 100", "image_to_text_top1", _percent, "60%"),
    ("clip", "CLIP: caption to picture, top-1 of 100", "text_to_image_top1", _percent, "60%"),
    ("clip", "CLIP: same person by a masked crop, top-1 of 100, last layer", "person_top1", _percent, ""),
    ("vision", "CLIP goes on: picture to caption, top-1 of 100", "image_to_text_top1", _percent, "60%"),
    ("vision", "CLIP goes on: caption to picture, top-1 of 100", "text_to_image_top1", _percent, "60%"),
    ("vision", "CLIP goes on: same person by a masked crop, top-1 of 100", "person_top1", _percent, ""),
    ("text", "text tower goes on: picture to caption, top-1 of 100", "image_to_text_top1", _percent, "60%"),
    ("text", "text tower goes on: caption to picture, top-1 of 100", "text_to_image_top1", _percent, "60%"),
    ("text", "text tower: share of a name's person that its states do not tell", "names_lost", _percent, ""),
    ("unet", "UNet: pictures made, one a caption", "pictures", _count, ""),
    ("unet", "UNet: their guidance", "guidance", _count, ""),
    ("unet", "UNet: face found by CenterFace", "face_found", _percent, "97%"),
    ("unet", "the same on drawn pictures", "face_found_drawn", _percent, ""),
    ("unet", "UNet: obeys background colour", "background", _percent, "95%"),
    ("unet", "UNet: obeys glasses", "glasses", _percent, "85%"),
    ("unet", "UNet: obeys hair colour", "hair_colour", _percent, "85%"),
    ("unet", "UNet: obeys smile", "smile", _percent, "75%"),
    ("unet", "UNet: people called by name, similarity", "name_identity", _plain, ""),
    ("unet", "the same for another drawn picture of them", "name_ceiling", _plain, ""),
    ("unet", "UNet: people called by name, top-1 of 100", "name_top1", _percent, ""),
    ("unet", "UNet: people called by name, guidance", "name_guidance", _count, ""),
    ("attributes", "classifier that judges it: background", "background", _percent, ""),
    ("attributes", "classifier: glasses", "glasses", _percent, ""),
    ("attributes", "classifier: hair colour", "hair_colour", _percent, ""),
    ("attributes", "classifier: smile", "smile", _percent, ""),
    ("identity", "identity net: top-1 of 100 (128 px pictures)", "top1", _percent, "99%"),
    ("identity", "identity net: equal error rate", "eer", _percent, "1.5%"),
    ("identity", "identity net: top-1 of 100 (base's size)", "top1_small", _percent, ""),
    ("identity", "identity net: equal error rate (base's size)", "eer_small", _percent, ""),
    ("identity", "identity net: mean cosine, same person", "same", _plain, ""),
    ("identity", "identity net: mean cosine, different people", "different", _plain, ""),
    ("judge", "second judge: top-1 of 100 (128 px pictures)", "top1", _percent, ""),
    ("judge", "second judge: equal error rate", "eer", _percent, ""),
    ("judge", "second judge: top-1 of 100 (base's size)", "top1_small", _percent, ""),
    ("judge", "second judge: equal error rate (base's size)", "eer_small", _percent, ""),
)
_PARTS = {
    "identity": "face_pack",
    "judge": "face_pack",
    "clip": "text_encoder, image_encoder",
    "vision": "image_encoder",
    "text": "text_encoder, image_encoder",
}


def write_card(base: Path, config: PretrainConfig) -> Path:
    """Writes the card of a base folder from its `figures.json`; figures that are not measured yet say so."""
    figures = json.loads((base / "figures.json").read_text())
    sizes = config.architecture
    text = _HEAD.format(
        size=sizes.picture_size,
        latent=sizes.latent_size,
        latent_channels=sizes.vae.latent_channels,
        people=config.train_people,
        views=config.train_views,
        history=_HISTORY if config.go_on else "",
        megabytes=sum(path.stat().st_size for path in base.rglob("*") if path.is_file()) / 1e6,
    )
    for part, title, key, form, goal in _ROWS:
        value = figures.get(part, {}).get(key)
        measured = "not yet" if value is None else form(value)
        text += f"| {_PARTS.get(part, part)} | {title} | {measured} | {goal} |\n"
    path = base / "MODEL_CARD.md"
    write_text_atomic(path, text + _TAIL)
    return path


_TAIL = """
Half of the sentences of the UNet's training called the person by a name: five words made from the
parameters of who is drawn (`components/portraits/pretrain/names.py`). The net that makes them knows nobody;
held-out people were never called by one, and "people called by name" says what the UNet can be told of
somebody new.

How measured: background, glasses, hair colour and smile of generated pictures are read by the classifier in
`attributes/`, whose own accuracy on drawn held-out people stands in the table; prompts are captions of
held-out people, so a picture must obey all of its caption at once. The two face nets differ in
architecture, seed and batches; the identity net is also a term in the VAE's loss, the second judge guides
nothing. Both learned from faces as careless cameras, detectors and painters give them
(`pretrain/batches.py`): blurred, shifted, spotted.
"""
