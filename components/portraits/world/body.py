"""Everything around the face that is neither head nor hair: background, neck, clothes, ears, brims.

A layer is a pair (colour (H, W, 3) or (3,), coverage (H, W) in [0, 1]); `over` puts it on the picture.
"""

import numpy as np

from components.portraits.world.identity import Identity
from components.portraits.world.palette import BACKGROUNDS, rgb01
from components.portraits.world.shape import Rays, antialias, smooth
from components.portraits.world.view import View


def over(picture: np.ndarray, colour: np.ndarray, coverage: np.ndarray) -> None:
    """Puts a layer on the picture (H, W, 3), in place."""
    moved = colour - picture
    moved *= coverage[..., None]
    picture += moved


def background(view: View, size: int) -> np.ndarray:
    """The plain wall with its gradient, (size, size, 3) float32."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    c, s = float(np.cos(view.background_angle)), float(np.sin(view.background_angle))
    wall = rgb01(BACKGROUNDS[view.background])
    return (
        wall
        * (1 - view.background_slope * 0.6 + view.background_slope * (c * axis[None] + s * axis[:, None]))[
            ..., None
        ]
    )


def neck(identity: Identity, rays: Rays, light_x: float, ambient: float, skin: np.ndarray):
    """The neck: a column under the chin, darker where the head shades it."""
    half = identity.head_width * (0.50 + 0.10 * identity.jaw_square)
    top = float(rays.rotation[0] @ np.array([0, 0.8, -0.12]))
    middle = top * smooth(1.5, 0.7, rays.y)
    across = (rays.x - middle) / (half + 0.30 * smooth(1.12, 1.40, rays.y) ** 2)
    cover = smooth(rays.pixel, -rays.pixel, (np.abs(across) - 1) * half) * smooth(0.45, 0.5, rays.y)
    round_ = np.sqrt(np.clip(1 - across * across, 0, 1))
    shade = (ambient + 0.30 * round_ + 0.22 * light_x * across) * (0.66 + 0.30 * smooth(0.95, 1.30, rays.y))
    return skin * shade[..., None], cover


def clothes(identity: Identity, view: View, rays: Rays, light_x: float):
    """Shoulders with a round neckline."""
    away = np.abs(rays.x)
    slope = 1.24 + 0.24 * away**2 - 0.05 * identity.jaw_square
    collar = 1.20 + 0.17 * smooth(0.50, 0.10, away)
    edge = np.maximum(slope, collar)
    cover = smooth(-rays.pixel, rays.pixel, rays.y - edge)
    shade = (
        0.80 + 0.10 * light_x * np.clip(rays.x, -1, 1) - 0.16 * away + 0.10 * smooth(0.0, 0.05, rays.y - edge)
    )
    return np.asarray(view.cloth_rgb, np.float32) * np.clip(shade, 0.3, 1)[..., None], cover


def ear(
    identity: Identity,
    rays: Rays,
    side: int,
    depth: np.ndarray,
    half_width: float,
    light_x: float,
    skin: np.ndarray,
):
    """One ear, hidden where the head stands before it (`depth` is the head's t, very low beside the head)."""
    centre = np.array([side * (half_width + 0.02), identity.eye_level + 0.13, -0.06])
    x, y, t = (float(c) for c in rays.rotation @ centre)
    turn = abs(float(np.arcsin(np.clip(rays.rotation[0, 2], -1, 1))))
    width, height = 0.065 + 0.09 * np.sin(turn), 0.165 * identity.ear_size
    px, py = (rays.xr - x) / float(width), (rays.yr - y) / float(height)
    radius = np.sqrt(px * px + (py + 0.12 * side * px) ** 2)
    cover = smooth(rays.pixel, -rays.pixel, (radius - 1) * float(width)) * smooth(-0.10, 0.02, t - depth)
    shade = 0.80 + 0.16 * light_x * side - 0.18 * smooth(0.7, 0.2, radius)
    return skin * np.array([1.0, 0.92, 0.90], np.float32) * shade[..., None], cover


def bun(identity: Identity, rays: Rays, hair: np.ndarray, light_x: float):
    """A knot of hair on the back of the head."""
    x, y, _ = (float(c) for c in rays.rotation @ np.array([0, -identity.head_height - 0.05, -0.22]))
    px, py = (rays.xr - x) / 0.30, (rays.yr - y) / 0.24
    radius = np.sqrt(px * px + py * py)
    shade = (
        0.62 + 0.40 * np.sqrt(np.clip(1 - radius**2, 0, 1)) + 0.15 * light_x * px + 0.05 * np.sin(30 * radius)
    )
    return hair * shade[..., None], smooth(rays.pixel, -rays.pixel, (radius - 1) * 0.24)


def brim(rays: Rays, line: float, kind: str, colour: np.ndarray, light_x: float):
    """The brim all around a hat, or the visor in front of a cap."""
    centre, half_u, half_v = (
        ((0, line, 0.0), 1.08, 0.15) if kind == "brimmed hat" else ((0, line + 0.02, 0.80), 0.56, 0.15)
    )
    x, y, _ = (float(c) for c in rays.rotation @ np.array(centre))
    px, py = (rays.xr - x) / half_u, (rays.yr - y) / half_v
    bend = py - 0.5 * px * px if kind == "cap" else py + 0.35 * px * px
    radius = np.sqrt(px * px + bend * bend)
    shade = 0.72 + 0.14 * light_x * px - 0.20 * np.clip(bend, -1, 1)
    shade = shade * (0.80 if kind == "cap" else 1.0)
    return colour * shade[..., None], antialias(1 - radius)
