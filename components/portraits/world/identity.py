"""Who a person is: about thirty parameters that stay the same in every picture of that person."""

from dataclasses import dataclass

import numpy as np

from components.portraits.world.palette import (
    AGES,
    EYE_COLOURS,
    GENDERS,
    GROUPS,
    HAT_COLOURS,
)

_NAMESPACE = 7301
_SKIN = {
    "Black": (0.78, 0.11, 0.1),
    "Brown": (0.54, 0.12, 0.3),
    "White": (0.13, 0.09, -0.5),
    "Yellow": (0.24, 0.09, 0.7),
}
_STYLE_ODDS = {  # gender -> style -> weight; every style is worn by both
    "female": {
        "short": 2,
        "side part": 2,
        "fringe": 3,
        "shoulder-length": 4,
        "long": 5,
        "curly": 3,
        "afro": 2,
        "bun": 4,
        "receding": 0.2,
        "bald": 0.4,
    },
    "male": {
        "short": 6,
        "side part": 5,
        "fringe": 2,
        "shoulder-length": 1,
        "long": 1,
        "curly": 3,
        "afro": 2,
        "bun": 0.7,
        "receding": 2.5,
        "bald": 3,
    },
}
_BEARD_ODDS = {"none": 10, "stubble": 3, "moustache": 2.2, "goatee": 2.2, "full beard": 4.5}


@dataclass(frozen=True)
class Identity:
    """A person. Lengths are in head units: the head is about two high, v grows downwards from its middle."""

    seed: int
    group: str
    gender: str
    age: str
    skin_tone: float
    skin_warmth: float
    head_width: float
    head_height: float
    jaw_taper: float
    jaw_square: float
    chin: float
    cheeks: float
    hair_style: str
    hair_colour: str
    hair_shade: float
    hairline: float
    hair_volume: float
    part_side: int
    eye_spacing: float
    eye_level: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    eye_colour: str
    brow_gap: float
    brow_thickness: float
    brow_width: float
    brow_arch: float
    brow_tilt: float
    nose_length: float
    nose_width: float
    nose_height: float
    mouth_level: float
    mouth_width: float
    lip_thickness: float
    lip_redness: float
    ear_size: float
    beard: str
    glasses: str
    glasses_colour: str
    hat: str
    hat_colour: str
    freckles: bool
    moles: tuple[tuple[float, float], ...]
    wrinkles: float


def draw_identity(seed: int) -> Identity:
    """The person of this seed; the same seed is the same person.

    Args:
        seed: any integer that is not negative.
    """
    rng = np.random.default_rng([_NAMESPACE, seed])
    group, gender = _pick(rng, GROUPS), _pick(rng, GENDERS)
    age = _pick(rng, AGES, (0.45, 0.35, 0.2))
    drawn = {"seed": seed, "group": group, "gender": gender, "age": age}
    for part in (_skin, _head, _hair, _eyes, _middle, _extras):
        drawn |= part(rng, group, gender, age)
    if drawn["skin_tone"] > 0.55 and drawn["glasses_colour"] == "black":
        drawn["glasses_colour"] = "gold"  # black frames would not be seen on dark skin
    return Identity(**drawn)


def _pick(rng: np.random.Generator, names, weights=None):
    names = tuple(names)
    if weights is not None:
        weights = np.asarray(tuple(weights), float) / sum(weights)
    return names[int(rng.choice(len(names), p=weights))]


def _near(rng: np.random.Generator, low: float, high: float, lean: float = 0.0) -> float:
    """A bell-like draw inside [low, high]; `lean` in [-1, 1] moves its middle by a part of the range."""
    value = rng.beta(1.7, 1.7) + 0.22 * lean
    return float(low + (high - low) * np.clip(value, 0, 1))


def _skin(rng, group, gender, age) -> dict:
    tone, spread, warmth = _SKIN[group]
    return {
        "skin_tone": float(np.clip(rng.normal(tone, spread), 0, 1)),
        "skin_warmth": float(np.clip(rng.normal(warmth, 0.45), -1, 1)),
        "freckles": bool(rng.random() < 0.14),
        "moles": tuple(_mole(rng) for _ in range(_pick(rng, (0, 1, 2), (0.72, 0.2, 0.08)))),
        "wrinkles": {"young": 0.0, "middle-aged": 0.4, "old": 1.0}[age] * float(rng.uniform(0.7, 1)),
    }


def _mole(rng) -> tuple[float, float]:
    side = float(rng.choice((-1, 1)))
    return side * float(rng.uniform(0.2, 0.42)), float(rng.uniform(0.22, 0.62))


def _head(rng, group, gender, age) -> dict:
    male = 1 if gender == "male" else -1
    return {
        "head_width": _near(rng, 0.60, 0.76, 0.3 * male),
        "head_height": _near(rng, 0.90, 1.04, 0.2 * male),
        "jaw_taper": _near(rng, 0.05, 0.38, -0.6 * male),
        "jaw_square": _near(rng, 0.0, 1.0, 0.7 * male),
        "chin": _near(rng, 0.0, 0.10, 0.4 * male),
        "cheeks": _near(rng, 0.0, 0.08),
        "ear_size": _near(rng, 0.8, 1.25, 0.2 * male),
    }


def _hair(rng, group, gender, age) -> dict:
    odds = _STYLE_ODDS[gender]
    style = _pick(rng, odds, odds.values())
    gray = {"young": 0.0, "middle-aged": 0.15, "old": 0.75}[age]
    if rng.random() < gray:
        colour = _pick(rng, ("gray", "white"), (0.6, 0.4))
    else:
        colour = _pick(rng, ("black", "brown", "blond", "red"), (0.32, 0.3, 0.22, 0.16))
    return {
        "hair_style": style,
        "hair_colour": colour,
        "hair_shade": float(rng.uniform(0.85, 1.15)),
        "hairline": _near(rng, 0.46, 0.64),
        "hair_volume": _near(rng, 0.06, 0.17),
        "part_side": int(rng.choice((-1, 1))),
    }


def _eyes(rng, group, gender, age) -> dict:
    male = 1 if gender == "male" else -1
    return {
        "eye_spacing": _near(rng, 0.235, 0.315),
        "eye_level": _near(rng, -0.02, 0.08),
        "eye_width": _near(rng, 0.105, 0.140, -0.2 * male),
        "eye_height": _near(rng, 0.040, 0.070, -0.3 * male),
        "eye_tilt": _near(rng, -0.16, 0.20),
        "eye_colour": _pick(rng, EYE_COLOURS, (0.36, 0.16, 0.16, 0.2, 0.12)),
        "brow_gap": _near(rng, 0.120, 0.175, -0.4 * male),
        "brow_thickness": _near(rng, 0.014, 0.040, 0.7 * male),
        "brow_width": _near(rng, 0.125, 0.17),
        "brow_arch": _near(rng, 0.01, 0.06, -0.5 * male),
        "brow_tilt": _near(rng, -0.22, 0.22),
    }


def _middle(rng, group, gender, age) -> dict:
    male = 1 if gender == "male" else -1
    return {
        "nose_length": _near(rng, 0.30, 0.41, 0.2 * male),
        "nose_width": _near(rng, 0.055, 0.105, 0.2 * male),
        "nose_height": _near(rng, 0.12, 0.24),
        "mouth_level": _near(rng, 0.54, 0.61),
        "mouth_width": _near(rng, 0.155, 0.235),
        "lip_thickness": _near(rng, 0.022, 0.056, -0.4 * male),
        "lip_redness": _near(rng, 0.1, 1.0, -0.8 * male),
    }


def _extras(rng, group, gender, age) -> dict:
    beard = _pick(rng, _BEARD_ODDS, _BEARD_ODDS.values())
    return {
        "beard": beard if gender == "male" else "none",
        "glasses": _pick(rng, ("none", "round", "square"), (0.82, 0.09, 0.09)),
        "glasses_colour": _pick(rng, ("black", "red", "blue"), (0.56, 0.24, 0.2)),
        "hat": _pick(rng, ("none", "beanie", "cap", "brimmed hat"), (0.92, 0.03, 0.025, 0.025)),
        "hat_colour": _pick(rng, HAT_COLOURS),
    }
