"""The geometry of a head: a rounded solid with bumps, seen along parallel rays.

Head space: u to the viewer's right, v down, w towards the viewer, origin in the middle of the head. At each
height v the head is an ellipse, pushed forward by a height map of bumps (nose, brows, cheeks, lips, chin).
Nothing here has a colour.
"""

import copy
from dataclasses import dataclass

import cv2
import numpy as np

from components.portraits.world.identity import Identity
from components.portraits.world.view import View

PICTURE_HALF = 1.42
"""Half the side of the picture, in head units."""
PICTURE_CENTRE_V = 0.17
SMILE_CURL = 0.125
"""How far a full smile lifts the corners of the mouth."""
DEPTH = 0.80
TABLE_U, TABLE_V = 0.9, 1.15
"""Half extents of every table over (u, v)."""
_BUMP_SHAPE = (140, 110)


def smooth(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high` (low may exceed high)."""
    t = np.minimum(np.maximum((x - low) * (1.0 / (high - low)), 0), 1)
    rest = 3 - 2 * t
    rest *= t
    rest *= t
    return rest


def table_axes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a table's cells: u as a row (1, width), v as a column (height, 1), float32."""
    u = np.linspace(-TABLE_U, TABLE_U, width, dtype=np.float32)[None]
    v = np.linspace(-TABLE_V, TABLE_V, height, dtype=np.float32)[:, None]
    return u, v


def look_up(table: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear values of a table (height, width[, channels]) at (u, v); the border is repeated outside."""
    height, width = table.shape[:2]
    x = (u + TABLE_U) * ((width - 1) / (2 * TABLE_U))
    y = (v + TABLE_V) * ((height - 1) / (2 * TABLE_V))
    return cv2.remap(table, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def antialias(field: np.ndarray) -> np.ndarray:
    """Coverage in [0, 1] of {field > 0}, from the distance to the zero line in pixels."""
    dx = cv2.Sobel(field, cv2.CV_32F, 1, 0, scale=0.125)
    dy = cv2.Sobel(field, cv2.CV_32F, 0, 1, scale=0.125)
    return np.clip(field / (np.sqrt(dx * dx + dy * dy) + 1e-6) + 0.5, 0, 1)


@dataclass(frozen=True)
class Expression:
    """The mouth of one view: its middle line is v = level - curl * (u / half_width)^2."""

    level: float
    half_width: float
    curl: float
    gap: float

    @classmethod
    def of(cls, identity: Identity, view: View) -> "Expression":
        """The mouth of this person with this smile."""
        joy = max(view.smile, 0.0)
        return cls(
            level=identity.mouth_level + 0.022 * joy,
            half_width=identity.mouth_width * (1 + 0.34 * joy),
            curl=0.012 + SMILE_CURL * view.smile,
            gap=0.045 * view.mouth_open,
        )

    def middle(self, u: np.ndarray) -> np.ndarray:
        """Height of the line between the lips."""
        return self.level - self.curl * np.clip(u / self.half_width, -1.2, 1.2) ** 2


class Rays:
    """Parallel rays of one view, one per pixel: point = origin + t * direction, t growing towards the viewer.

    Attributes:
        x, y: (size, size) float32, the pixel in camera units, before roll.
        xr, yr: the same, after roll: upright with respect to the head.
        u0, v0, w0: origins; direction: (3,) float.
    """

    def __init__(self, view: View, size: int) -> None:
        axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1) * PICTURE_HALF
        self.view, self.size = view, size
        x, y = np.meshgrid(axis, axis + PICTURE_CENTRE_V)
        self.x = (x - view.shift_x) / view.scale
        self.y = (y - view.shift_y) / view.scale
        c, s = float(np.cos(view.roll)), float(np.sin(view.roll))
        self.xr, self.yr = c * self.x + s * self.y, -s * self.x + c * self.y
        self.rotation = _rotation(view.yaw, view.pitch)
        r = self.rotation.tolist()
        self.u0, self.v0, self.w0 = (r[0][k] * self.xr + r[1][k] * self.yr for k in range(3))
        self.direction = tuple(r[2])
        self.pixel = 2 * PICTURE_HALF / size / view.scale

    def cropped(self, window: tuple[slice, slice]) -> "Rays":
        """The same rays for a part of the picture (rows, columns)."""
        part = copy.copy(self)
        for name in ("x", "y", "xr", "yr", "u0", "v0", "w0"):
            setattr(part, name, np.ascontiguousarray(getattr(self, name)[window]))
        return part

    def around_head(self, half_u: float = 0.95, half_v: float = 1.16) -> tuple[slice, slice]:
        """The window (rows, columns) of the picture that holds the head and its ears."""
        middle = (
            (np.array([self.view.shift_x, self.view.shift_y - PICTURE_CENTRE_V]) / PICTURE_HALF + 1)
            * self.size
            / 2
        )
        reach = np.array([half_u, half_v]) / self.pixel
        low = np.maximum(np.floor(middle - reach), 0).astype(int).tolist()
        high = np.minimum(np.ceil(middle + reach), self.size).astype(int).tolist()
        return slice(low[1], high[1]), slice(low[0], high[0])

    def at(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Head points (u, v, w) at depth t."""
        du, dv, dw = self.direction
        return self.u0 + du * t, self.v0 + dv * t, self.w0 + dw * t

    def project(self, points_N3: np.ndarray) -> np.ndarray:
        """Head points (N, 3) to pixels (N, 2), x then y."""
        camera = points_N3 @ self.rotation.T
        c, s = np.cos(self.view.roll), np.sin(self.view.roll)
        x = (c * camera[:, 0] - s * camera[:, 1]) * self.view.scale + self.view.shift_x
        y = (s * camera[:, 0] + c * camera[:, 1]) * self.view.scale + self.view.shift_y - PICTURE_CENTRE_V
        return ((np.stack([x, y], 1) / PICTURE_HALF + 1) * (self.size / 2) - 0.5).astype(np.float32)


def _rotation(yaw: float, pitch: float) -> np.ndarray:
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return turn @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])


class Head:
    """The solid of one person with one expression."""

    def __init__(self, identity: Identity, mouth: Expression) -> None:
        self.identity, self.mouth = identity, mouth
        v = np.linspace(-1.6, 1.6, 1024, dtype=np.float32)
        self._section, self._half_width = _section(identity, v), _half_width(identity, v)
        self.bumps = _bumps(identity, mouth)
        step_u, step_v = 2 * TABLE_U / (_BUMP_SHAPE[1] - 1), 2 * TABLE_V / (_BUMP_SHAPE[0] - 1)
        slope_u = cv2.Sobel(self.bumps, cv2.CV_32F, 1, 0, ksize=3, scale=0.125 / step_u)
        slope_v = cv2.Sobel(self.bumps, cv2.CV_32F, 0, 1, ksize=3, scale=0.125 / step_v)
        self._slopes = cv2.merge([slope_u, slope_v])

    def profile(self, v: np.ndarray | np.float32) -> tuple[np.ndarray, np.ndarray]:
        """Squared relative size of the section at v (negative beyond top and chin), and its half width."""
        index = np.minimum(np.maximum((v + 1.6) * (1023 / 3.2), 0), 1023).astype(np.int32)
        return self._section[index], self._half_width[index]

    def front(self, u: float, v: float) -> float:
        """Height w of the front surface at one point."""
        section, width = self.profile(np.float32(v))
        bump = look_up(self.bumps, np.array([[u]], np.float32), np.array([[v]], np.float32))[0, 0]
        return float(DEPTH * np.sqrt(np.maximum(section - (u / width) ** 2, 0)) + bump)

    def silhouette(self, rays: Rays) -> np.ndarray:
        """Field over the picture, positive where the head is."""
        du, dv, dw = rays.direction
        t = np.zeros_like(rays.u0)
        for _ in range(2):
            section, width = self.profile(rays.v0 + dv * t)
            inv, idd = 1 / (width * width), 1 / DEPTH**2
            a = du * du * inv + dw * dw * idd
            t = -(rays.u0 * du * inv + rays.w0 * dw * idd) / a
        u, v, w = rays.at(t)
        section, width = self.profile(v)
        return section - (u / width) ** 2 - (w / DEPTH) ** 2

    def hit(self, rays: Rays, steps: int = 6) -> np.ndarray:
        """Depth t of the first surface along each ray (of the closest approach where the ray misses)."""
        du, dv, dw = rays.direction
        t = np.full_like(rays.u0, 1.0)
        for step in range(steps):
            u, v, w = rays.at(t)
            section, width = self.profile(v)
            bump = look_up(self.bumps, u, v) * np.clip(w * 4, 0, 1)
            inv, idd = 1 / (width * width), 1 / DEPTH**2
            ahead = rays.w0 - bump
            a = du * du * inv + dw * dw * idd
            b = rays.u0 * du * inv + ahead * dw * idd
            k = rays.u0**2 * inv + ahead**2 * idd - section
            root = (np.sqrt(np.maximum(b * b - a * k, 0)) - b) / a
            t = root if step == 0 else t + 0.65 * (root - t)
        return t

    def normals(self, rays: Rays, u: np.ndarray, v: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
        """Unit normals at surface points, in camera space (upright frame): three (H, W) arrays."""
        section, width = self.profile(v)
        step = 0.03
        above, below = self.profile(v - step), self.profile(v + step)
        fade = np.clip(w * 4, 0, 1)
        slopes = look_up(self._slopes, u, v) * fade[..., None]
        bump = look_up(self.bumps, u, v) * fade
        depth = 2 * (w - bump) / DEPTH**2
        inside = (u / above[1]) ** 2 - above[0], (u / below[1]) ** 2 - below[0]
        normal_u = 2 * u / width**2 - depth * slopes[..., 0]
        normal_v = (inside[1] - inside[0]) / (2 * step) - depth * slopes[..., 1]
        return to_camera(rays, normal_u, normal_v, depth)


def to_camera(rays: Rays, u: np.ndarray, v: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    """Directions of head space, made unit and turned into the camera's upright frame."""
    length = 1 / np.sqrt(u * u + v * v + w * w + 1e-8)
    return tuple((row[0] * u + row[1] * v + row[2] * w) * length for row in rays.rotation.tolist())


def _section(identity: Identity, v: np.ndarray) -> np.ndarray:
    relative = np.abs(v) / identity.head_height
    power = np.where(v < 0, 2.4, 2.3 + 0.9 * identity.jaw_square)
    return (1 - relative**power).astype(np.float32)


def _half_width(identity: Identity, v: np.ndarray) -> np.ndarray:
    taper = identity.jaw_taper + 0.12
    return identity.head_width * (1 - taper * smooth(0.0, 1.05, v)).astype(np.float32)


def _bell(x: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - centre) / width) ** 2)


def _bumps(identity: Identity, mouth: Expression) -> np.ndarray:
    """Height map (w) of everything that stands out of the plain solid; float32 of _BUMP_SHAPE."""
    u, v = table_axes(*_BUMP_SHAPE)
    eye, dx = identity.eye_level, identity.eye_spacing
    pair = lambda centre, width: _bell(u, -centre, width) + _bell(u, centre, width)  # noqa: E731
    z = -0.075 * pair(dx, 0.12) * _bell(v, eye - 0.01, 0.075) + 0.035 * pair(dx, 0.075) * _bell(v, eye, 0.05)
    z = z + 0.035 * pair(dx * 0.95, 0.15) * _bell(v, eye - identity.brow_gap * 0.9, 0.05)
    lift = 0.03 * mouth.curl / SMILE_CURL
    z += (0.015 + identity.cheeks + max(lift, 0)) * pair(0.36, 0.14) * _bell(v, eye + 0.30 - lift, 0.13)
    z += (0.03 + identity.chin) * _bell(u, 0, 0.17) * _bell(v, 0.84, 0.10)
    z -= 0.022 * _bell(u, 0, 0.2) * _bell(v, mouth.level + 0.12, 0.035)
    return (z + _nose_bump(identity, u, v) + _mouth_bump(identity, mouth, u, v)).astype(np.float32)


def _nose_bump(identity: Identity, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    eye, tip = identity.eye_level, identity.eye_level + identity.nose_length
    along = np.clip((v - eye + 0.05) / (identity.nose_length + 0.05), 0, 1)
    spread = identity.nose_width * (0.50 + 0.40 * along)
    rise = smooth(eye - 0.14, eye + 0.08, v) * (1 - smooth(tip - 0.03, tip + 0.06, v))
    ridge = identity.nose_height * (0.25 + 0.75 * along) * rise * np.exp(-0.5 * (u / spread) ** 2)
    wing = identity.nose_width * 0.95
    wings = (_bell(u, -wing, 0.042) + _bell(u, wing, 0.042)) * _bell(v, tip - 0.02, 0.04)
    return ridge + 0.05 * wings


def _mouth_bump(identity: Identity, mouth: Expression, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    lip, width = identity.lip_thickness, mouth.half_width
    below = v - mouth.middle(u)
    reach = smooth(width * 1.15, width * 0.6, np.abs(u))
    upper = 0.035 * np.exp(-0.5 * ((below + lip * 0.7 + mouth.gap) / (lip * 0.8)) ** 2)
    lower = 0.045 * np.exp(-0.5 * ((below - lip * 0.8 - mouth.gap) / (lip * 0.8)) ** 2)
    seam = 0.03 * np.exp(-0.5 * (below / (0.018 + mouth.gap)) ** 2)
    return reach * (upper + lower - seam)
