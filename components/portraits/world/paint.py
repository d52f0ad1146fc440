"""What is painted on the skin, as a table over (u, v): eyes, brows, lips, beard, freckles, glasses."""

import numpy as np

from components.portraits.world.identity import Identity
from components.portraits.world.palette import EYE_COLOURS, FRAME_COLOURS, HAIR_COLOURS, rgb01, skin_colour
from components.portraits.world.shape import SMILE_CURL, TABLE_U, TABLE_V, Expression, smooth, table_axes
from components.portraits.world.view import View

_SHAPE = (222, 174)
"""Cells of the table: 96 a head unit."""
_BLUR = 0.010
"""Half width of painted edges, in head units (about a cell)."""


class Canvas:
    """The colour table, changed window by window, so that the cost of a feature is its own area."""

    def __init__(self, colour: np.ndarray) -> None:
        self.rgb = np.empty((*_SHAPE, 3), np.float32)
        self.rgb.reshape(_SHAPE[0], -1)[:] = np.tile(colour, _SHAPE[1])
        self._u, self._v = table_axes(*_SHAPE)

    def window(self, u: float, v: float, half_u: float, half_v: float):
        """The part around (u, v): its index, and its coordinates as a row and a column relative to (u, v)."""
        rows = _cells(v, half_v, TABLE_V, _SHAPE[0])
        columns = _cells(u, half_u, TABLE_U, _SHAPE[1])
        return (rows, columns), self._u[:, columns] - u, self._v[rows] - v

    def mix(self, where, colour, amount: np.ndarray) -> None:
        """Moves the window's colours towards `colour` by `amount` in [0, 1]."""
        part = self.rgb[where]
        moved = np.asarray(colour, np.float32) - part
        moved *= np.asarray(amount, np.float32)[..., None]
        part += moved

    def spot(self, u: float, v: float, width: float, height: float, colour, amount: float) -> None:
        """A soft round spot."""
        where, x, y = self.window(u, v, 3 * width, 3 * height)
        self.mix(where, colour, amount * np.exp(-0.5 * (x / width) ** 2) * np.exp(-0.5 * (y / height) ** 2))


def _cells(centre: float, half: float, extent: float, count: int) -> slice:
    scale = (count - 1) / (2 * extent)
    low, high = (centre - half + extent) * scale, (centre + half + extent) * scale
    return slice(max(int(low), 0), min(int(high) + 2, count))


def paint_face(identity: Identity, view: View, mouth: Expression) -> np.ndarray:
    """Colours of the face of one person with one expression.

    Returns:
        (222, 174, 3) float32 RGB in [0, 1] over (v, u) of `shape.table_axes`.
    """
    skin = skin_colour(identity.skin_tone, identity.skin_warmth)
    canvas = Canvas(skin)
    _flush(canvas, identity, skin)
    _marks(canvas, identity, skin)
    _lines(canvas, identity, mouth, skin)
    _beard(canvas, identity, mouth, skin)
    _lips(canvas, identity, mouth, skin)
    for side in (-1, 1):
        _eye(canvas, identity, view, side, skin)
        _brow(canvas, identity, view, side)
    if identity.glasses != "none" if view.glasses is None else view.glasses:
        _glasses(canvas, identity)
    return canvas.rgb


def _flush(canvas: Canvas, identity: Identity, skin: np.ndarray) -> None:
    flush = skin * np.array([1.0, 0.80, 0.78], np.float32)
    tip = identity.eye_level + identity.nose_length
    for side in (-1, 1):
        canvas.spot(side * 0.36, identity.eye_level + 0.32, 0.13, 0.10, flush, 0.5)
        canvas.spot(side * identity.nose_width * 0.55, tip + 0.014, 0.022, 0.012, skin * 0.32, 0.75)
    canvas.spot(0, tip - 0.03, 0.07, 0.05, flush, 0.45)
    canvas.spot(0, tip + 0.04, identity.nose_width * 0.8, 0.022, skin * 0.62, 0.45)


def _marks(canvas: Canvas, identity: Identity, skin: np.ndarray) -> None:
    if identity.freckles:
        rng = np.random.default_rng([7303, identity.seed])
        for u, v in zip(
            rng.normal(0, 0.22, 36), rng.normal(identity.eye_level + 0.22, 0.06, 36), strict=True
        ):
            canvas.spot(
                float(u), float(v), 0.013, 0.012, skin * np.array([0.70, 0.55, 0.45], np.float32), 0.75
            )
    for u, v in identity.moles:
        canvas.spot(u, v, 0.019, 0.019, skin * 0.28, 0.95)


def _lines(canvas: Canvas, identity: Identity, mouth: Expression, skin: np.ndarray) -> None:
    """Folds beside the nose (deeper with a smile), lines of age on the forehead and under the eyes."""
    age, joy = identity.wrinkles, max(mouth.curl / SMILE_CURL, 0)
    dark, tip = skin * np.array([0.66, 0.58, 0.56], np.float32), identity.eye_level + identity.nose_length
    for side in (-1, 1):
        where, x, y = canvas.window(side * 0.2, tip + 0.08, 0.16, 0.20)
        bow = side * (-0.05 + 0.35 * (y + 0.12) - 0.3 * (y + 0.12) ** 2)
        fold = np.exp(-0.5 * ((x - bow) / 0.016) ** 2) * smooth(-0.17, -0.08, y) * smooth(0.17, 0.06, y)
        canvas.mix(where, dark, (0.12 + 0.35 * age + 0.25 * joy) * fold)
        where, x, y = canvas.window(side * identity.eye_spacing, identity.eye_level + 0.095, 0.13, 0.05)
        bag = np.exp(-0.5 * ((y + 1.6 * x * x) / 0.012) ** 2) * smooth(0.12, 0.04, np.abs(x))
        canvas.mix(where, dark, (0.08 + 0.42 * age) * bag)
    for row in (0, 1, 2) if age > 0.2 else ():
        where, x, y = canvas.window(0, identity.eye_level - 0.30 - 0.075 * row, 0.34, 0.04)
        wave = np.exp(-0.5 * ((y - 0.12 * x * x) / 0.010) ** 2) * smooth(0.34, 0.18, np.abs(x))
        canvas.mix(where, dark, 0.5 * age * wave)


def _beard(canvas: Canvas, identity: Identity, mouth: Expression, skin: np.ndarray) -> None:
    if identity.beard == "none":
        return
    hair = rgb01(HAIR_COLOURS[identity.hair_colour]) * identity.hair_shade * 0.85
    where, u, v = canvas.window(0, 0, TABLE_U, TABLE_V)
    rows = slice(int(0.58 * _SHAPE[0]), _SHAPE[0])
    where, v = (rows, where[1]), v[rows]
    side = np.abs(u)
    below = v - mouth.middle(u)
    lip = identity.lip_thickness * 1.6 + mouth.gap
    hung = below - 0.45 * np.maximum(side - 0.09, 0)  # a moustache droops at its ends
    tache = smooth(-0.165, -0.110, hung) * smooth(-lip * 0.5, -lip, hung) * smooth(0.30, 0.23, side)
    around = smooth(0.21, 0.17, side) * smooth(-0.09, -0.03, below)
    chin = smooth(lip * 0.9, lip + 0.03, below) * smooth(0.16 + 0.25 * identity.jaw_square * 0.4, 0.10, side)
    line = 0.30 + 0.30 * smooth(0.62, 0.22, side) + 0.04 * np.sin(side * 40) * 0.3
    full = np.maximum(smooth(line, line + 0.10, v), around)
    full = full * (1 - smooth(1.0, 0.8, np.hypot(u / (mouth.half_width * 1.15), below / (lip * 1.05))))
    grain = 0.88 + 0.12 * np.sin(u * 160 + 9 * np.sin(v * 37)) * np.sin(v * 110 + u * 50)
    amount = {
        "stubble": 0.34 * np.maximum(full, tache),
        "moustache": 0.95 * tache,
        "goatee": 0.92
        * np.maximum(np.maximum(tache, chin), around * smooth(0.13, 0.17, side) * smooth(0.2, 0.1, below)),
        "full beard": 0.95 * np.maximum(full, tache),
    }[identity.beard]
    canvas.mix(where, hair, amount * grain)


def _lips(canvas: Canvas, identity: Identity, mouth: Expression, skin: np.ndarray) -> None:
    natural = skin * np.array([0.86, 0.62, 0.60], np.float32)
    rouge = np.array([0.70, 0.20, 0.22], np.float32) * (0.55 + 0.45 * float(skin.mean()))
    colour = natural + (rouge - natural) * 0.75 * identity.lip_redness
    where, u, y = canvas.window(0, mouth.level, mouth.half_width * 1.1, 0.22)
    below = y + mouth.curl * (u / mouth.half_width) ** 2
    arc = np.clip(1 - (u / mouth.half_width) ** 2, 0, 1)
    bow = 0.3 * np.exp(-0.5 * (u / 0.035) ** 2)
    gap, lip = mouth.gap * arc, identity.lip_thickness
    top = -lip * (1.15 * arc**0.7 - bow) - 0.6 * gap
    bottom = lip * 1.4 * arc**0.6 + 1.4 * gap
    within = smooth(0, 0.05, arc)
    canvas.mix(
        where, colour * 0.9, smooth(-_BLUR, _BLUR, below - top) * smooth(_BLUR, -_BLUR, below) * within
    )
    canvas.mix(where, colour, smooth(-_BLUR, _BLUR, bottom - below) * smooth(-_BLUR, _BLUR, below) * within)
    seam = np.exp(-0.5 * (below / 0.009) ** 2) * smooth(0, 0.12, arc)
    canvas.mix(where, colour * 0.38, 0.85 * seam)
    if mouth.gap > 0.004:
        inside = smooth(-0.006, 0.006, 0.95 * gap - np.abs(below - 0.2 * gap)) * within
        canvas.mix(where, (0.30, 0.09, 0.09), inside)
        canvas.mix(where, (0.94, 0.93, 0.90), inside * smooth(0.014, -0.006, below - 0.25 * gap))


def _eye(canvas: Canvas, identity: Identity, view: View, side: int, skin: np.ndarray) -> None:
    width, height = (
        identity.eye_width,
        identity.eye_height * (1 - view.blink) * (1 - 0.12 * max(view.smile, 0)) + 0.004,
    )
    iris_rgb, iris = rgb01(EYE_COLOURS[identity.eye_colour]), 0.056
    where, x, y = canvas.window(side * identity.eye_spacing, identity.eye_level, 0.19, 0.15)
    y = y + side * x * identity.eye_tilt
    arc = np.clip(1 - (x / width) ** 2, 0, 1)
    lid, floor = y + height * 1.15 * arc, height * 0.85 * arc - y
    opened = smooth(-_BLUR, _BLUR, lid) * smooth(-_BLUR, _BLUR, floor) * (arc > 0)
    shadow = np.exp(-0.5 * ((y + height * 1.3) / 0.035) ** 2) * np.exp(-0.5 * (x / (width * 0.8)) ** 2)
    canvas.mix(where, skin * np.array([0.60, 0.52, 0.50], np.float32), 0.55 * shadow)
    canvas.mix(where, (0.95, 0.94, 0.92), opened)
    radius = np.hypot(x - view.gaze * 0.032, y + 0.004)
    canvas.mix(where, iris_rgb * 0.45, opened * smooth(iris + _BLUR, iris - _BLUR, radius))
    canvas.mix(where, iris_rgb, opened * smooth(iris - 0.004, iris - 0.016, radius))
    canvas.mix(where, (0.03, 0.03, 0.03), opened * smooth(0.030, 0.018, radius))
    glint = np.exp(
        -0.5 * (((x - 0.016 + 0.02 * (view.light_side < 0)) / 0.011) ** 2 + ((y + 0.02) / 0.011) ** 2)
    )
    canvas.mix(where, (1, 1, 1), 0.9 * opened * glint)
    lash = 0.014 if identity.gender == "male" else 0.019
    reach = smooth(width * 1.14, width * 0.95, np.abs(x))
    canvas.mix(where, (0.07, 0.05, 0.05), 0.92 * smooth(lash, lash * 0.2, np.abs(lid)) * reach)
    canvas.mix(where, skin * 0.5, 0.35 * smooth(0.012, 0.002, np.abs(floor)) * reach)


def _brow(canvas: Canvas, identity: Identity, view: View, side: int) -> None:
    base = rgb01(HAIR_COLOURS[identity.hair_colour]) * identity.hair_shade
    colour = base * (0.62 if identity.hair_colour in ("blond", "gray", "white") else 0.8) * 0.85
    where, x, y = canvas.window(
        side * identity.eye_spacing * 1.03, identity.eye_level - identity.brow_gap, 0.2, 0.12
    )
    along = x * (side / identity.brow_width)
    line = (
        -identity.brow_arch * (1 - (along - 0.15) ** 2)
        + side * x * identity.brow_tilt * 0.4
        - 0.012 * max(view.smile, 0)
    )
    thick = (
        identity.brow_thickness * np.clip(1 - np.clip(along, -1, 1) ** 2, 0, 1) ** 0.45 * (1.1 - 0.3 * along)
    )
    canvas.mix(where, colour, 0.9 * smooth(_BLUR, -_BLUR, np.abs(y - line) - thick) * (np.abs(along) < 1))


def _glasses(canvas: Canvas, identity: Identity) -> None:
    colour = rgb01(FRAME_COLOURS[identity.glasses_colour])
    shape = "square" if identity.glasses == "square" else "round"
    half_u, half_v, power = (0.20, 0.145, 5) if shape == "square" else (0.175, 0.165, 2)
    centre = max(identity.eye_spacing, half_u + 0.04)
    for side in (-1, 1):
        where, x, y = canvas.window(side * centre, identity.eye_level + 0.01, 0.27, 0.24)
        radius = (np.abs(x / half_u) ** power + np.abs(y / half_v) ** power) ** (1 / power)
        canvas.mix(where, (0.92, 0.96, 1.0), 0.16 * smooth(1.0, 0.9, radius))
        canvas.mix(where, colour, smooth(0.026, 0.012, np.abs(radius - 1) * half_v))
        arm = centre + half_u
        where, x, y = canvas.window(side * (arm + 0.2), identity.eye_level - 0.03, 0.2, 0.04)
        canvas.mix(where, colour, smooth(0.022, 0.010, np.abs(y)) + 0 * x)
    where, x, y = canvas.window(0, identity.eye_level - 0.01, centre - half_u + 0.01, 0.07)
    canvas.mix(where, colour, smooth(0.024, 0.010, np.abs(y - 1.5 * x * x)))
