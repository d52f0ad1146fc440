"""The portrait world: drawn people of whom everything is known (picture, face mask, landmarks, caption, attributes).

`palette` names colours, `identity` and `view` say who and how, `shape` is geometry, `paint` colours the face, `hair`,
`body` and `shade` do the rest, `render` puts it together, `caption` finds the words. Only NumPy and OpenCV.
"""

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
from components.portraits.world.render import Portrait, portrait, render
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
    "render",
]
