"""Names and colours of the portrait world: groups, hair, eyes, skin, backgrounds, hats, frames."""

import numpy as np

GROUPS = ("Black", "Brown", "White", "Yellow")
GENDERS = ("female", "male")
AGES = ("young", "middle-aged", "old")

BACKGROUNDS = {
    "red": (196, 44, 46),
    "orange": (240, 140, 44),
    "yellow": (240, 214, 76),
    "green": (64, 150, 76),
    "blue": (52, 96, 196),
    "purple": (126, 66, 168),
    "pink": (240, 150, 190),
    "gray": (128, 130, 134),
    "white": (238, 238, 236),
}
"""Plain walls, RGB in [0, 255]."""

HAIR_COLOURS = {
    "black": (30, 25, 25),
    "brown": (92, 56, 34),
    "blond": (218, 178, 104),
    "red": (150, 62, 28),
    "gray": (144, 144, 148),
    "white": (228, 226, 222),
}
"""Natural hair colours, RGB in [0, 255]."""

EYE_COLOURS = {
    "brown": (84, 50, 28),
    "hazel": (132, 96, 44),
    "green": (84, 130, 76),
    "blue": (66, 112, 168),
    "gray": (116, 126, 136),
}

HAT_COLOURS = {
    "red": (176, 40, 44),
    "blue": (44, 72, 140),
    "green": (52, 104, 64),
    "yellow": (226, 184, 60),
    "white": (226, 224, 218),
}

FRAME_COLOURS = {"black": (18, 18, 22), "gold": (232, 190, 88), "red": (196, 32, 40), "blue": (44, 84, 200)}

HAIR_STYLES = (
    "short",
    "side part",
    "fringe",
    "shoulder-length",
    "long",
    "curly",
    "afro",
    "receding",
    "bun",
    "bald",
)
BEARDS = ("none", "stubble", "moustache", "goatee", "full beard")
GLASSES = ("none", "round", "square")
HATS = ("none", "beanie", "cap", "brimmed hat")

_SKIN_RAMP = np.array(
    [(250, 216, 192), (242, 194, 160), (222, 168, 124), (184, 126, 84), (138, 88, 58), (92, 60, 44)],
    np.float32,
)


def rgb01(colour_uint8: tuple[int, int, int]) -> np.ndarray:
    """RGB in [0, 255] as float32 in [0, 1]."""
    return np.asarray(colour_uint8, np.float32) / 255


def skin_colour(tone: float, warmth: float) -> np.ndarray:
    """Skin of tone 0 (lightest) to 1 (darkest), warmth -1 (pink) to 1 (yellow); RGB float32 in [0, 1]."""
    knots = np.linspace(0, 1, len(_SKIN_RAMP))
    base = np.array([np.interp(tone, knots, _SKIN_RAMP[:, c]) for c in range(3)], np.float32) / 255
    return np.clip(base * np.array([1.0, 1 + 0.02 * warmth, 1 - 0.07 * warmth], np.float32), 0, 1)
