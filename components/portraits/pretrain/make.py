"""Makes a base model: draws people, trains the parts in order, measures each, keeps the card up to date."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from components.core import setup_logging, write_text_atomic
from components.portraits.architecture import create_base
from components.portraits.pretrain.card import write_card
from components.portraits.pretrain.config import Part, PretrainConfig
from components.portraits.pretrain.people import HELDOUT_START, TRAIN_START, load_people
from components.portraits.pretrain.workshop import Workshop

logger = logging.getLogger(__name__)


def make_base(config: PretrainConfig, work: Path, out: Path) -> dict:
    """Trains a base model; goes on from where an earlier run in the same work folder stopped.

    Args:
        config: All settings.
        work: Caches of drawn people, checkpoints, grids of pictures, `log.txt`.
        out: Written in float16 after each part; a whole base from the start.

    Returns:
        The figures by part, as in `out/figures.json`.
    """
    setup_logging(work / "log.txt")
    if not (out / "model_index.json").is_file():
        create_base(out, config.architecture)
    shop = open_workshop(config, work, out)
    for part in config.parts:
        logger.info("%s begins", part)
        _note(out, part, _trainer(part)(shop))
        if part == "identity" and "vae" not in config.parts and "vae" in _known(out):
            _note(out, "vae", _vae_again(shop))
        write_card(out, config)
    return _known(out)


def open_workshop(config: PretrainConfig, work: Path, out: Path) -> Workshop:
    """Draws people as needed and opens the workshop."""
    size, processes = config.picture_size, config.threads
    return Workshop(
        config,
        work,
        out,
        load_people(
            work / "people" / "train", TRAIN_START, config.train_people, config.train_views, size, processes
        ),
        load_people(
            work / "people" / "heldout",
            HELDOUT_START,
            config.heldout_people,
            config.heldout_views,
            size,
            processes,
        ),
    )


def _trainer(part: Part) -> Callable[[Workshop], dict]:
    if part in ("identity", "judge"):
        from components.portraits.pretrain.identity import train_identity

        return lambda shop: train_identity(shop, part)
    if part == "vae":
        from components.portraits.pretrain.vae import train_vae

        return train_vae
    if part == "clip":
        from components.portraits.pretrain.clip import train_clip

        return train_clip
    if part == "vision":
        from components.portraits.pretrain.vision import train_vision

        return train_vision
    if part == "text":
        from components.portraits.pretrain.text import train_text

        return train_text
    if part == "unet":
        from components.portraits.pretrain.unet import train_unet

        return train_unet
    from components.portraits.pretrain.attributes import train_attributes

    return train_attributes


def _vae_again(shop: Workshop) -> dict[str, float]:
    """The figures of an autoencoder that a new identity net judges."""
    from components.portraits.pretrain.measure import reconstruction_figures
    from components.portraits.pretrain.unet import load_vae

    return reconstruction_figures(shop, load_vae(shop.out))


def _known(out: Path) -> dict:
    path = out / "figures.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _note(out: Path, part: Part, figures: dict) -> None:
    """Adds one part's figures to `figures.json`."""
    known = _known(out) | {part: figures}
    logger.info("%s: %s", part, json.dumps(figures))
    write_text_atomic(out / "figures.json", json.dumps(known, indent=2) + "\n")
