"""The portrait world: drawn people of whom everything is known.

`palette` names colours, `identity` and `view` say who and how, `shape` is geometry, `paint` colours the
face, `hair`, `body` and `shade` do the rest, `picture` puts it together, `caption` finds the words. NumPy and
OpenCV only.
"""

from components.portraits.world.caption import prompt_for
from components.portraits.world.identity import Identity, draw_identity
from components.portraits.world.palette import (
    AGES,
    BACKGROUNDS,
    BEARDS,
    EYE_COLOURS,
    GENDERS,
    GLASSES,
    GROUPS,
    HAIR_COLOURS,
    HAIR_STYLES,
    HATS,
)
from components.portraits.world.picture import Portrait, portrait, render
from components.portraits.world.view import View, draw_view

__all__ = [
    "AGES",
    "BACKGROUNDS",
    "BEARDS",
    "EYE_COLOURS",
    "GENDERS",
    "GLASSES",
    "GROUPS",
    "HAIR_COLOURS",
    "HAIR_STYLES",
    "HATS",
    "Identity",
    "Portrait",
    "View",
    "draw_identity",
    "draw_view",
    "portrait",
    "prompt_for",
    "render",
]
