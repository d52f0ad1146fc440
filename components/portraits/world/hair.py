"""Hair as a volume: a shell around the head, cut along a line that depends on the direction seen from above.

A ray may meet the shell in front of the head (a fringe, a curtain beside the cheek) and behind it (hair that
falls behind the neck); where it meets the cut-away part it goes through.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from components.portraits.world.identity import Identity
from components.portraits.world.shape import DEPTH, Rays, antialias, smooth, to_camera


@dataclass(frozen=True)
class Cut:
    """A hair cut. Heights are v (down is positive); angles go around the vertical axis from 0 in front.

    Attributes:
        volume: thickness over the head; lift: extra height on top.
        front: hairline above the forehead; temple: angle where it begins to fall.
        side, back: where hair ends there.
        lean: how far the hairline slants (a side part); curl: roughness of the outline and texture.
        flare: widening with v, for hair that falls.
    """

    volume: float
    front: float
    temple: float = 0.82
    side: float = 0.06
    back: float = 0.45
    lift: float = 0.0
    lean: float = 0.0
    curl: float = 0.0
    flare: float = -0.25

    @classmethod
    def of(cls, identity: Identity) -> "Cut | None":
        """The cut this person wears; None for the bald."""
        volume, line, side = identity.hair_volume, -identity.hairline, identity.part_side
        if identity.hat != "none":
            volume = min(volume, 0.08)
        full = volume + (0.10 if identity.hat == "none" else 0.03)
        cuts = {
            "short": lambda: cls(0.45 * volume + 0.01, line, lift=0.02),
            "side part": lambda: cls(0.7 * volume, line + 0.03, lean=0.13 * side, lift=0.04),
            "fringe": lambda: cls(
                volume, -0.27 - 0.15 * (identity.hairline - 0.46), side=0.22, temple=0.95, back=0.6
            ),
            "shoulder-length": lambda: cls(
                volume, line + 0.02, 0.86, 0.80, 0.86, 0.02, 0.08 * side, 0.05, 0.02
            ),
            "long": lambda: cls(volume, line + 0.02, 0.92, 1.34, 1.5, 0.03, 0.06 * side, 0.08, 0.10),
            "curly": lambda: cls(full, line + 0.06, 0.90, 0.40, 0.72, 0.02, 0.0, 0.8, 0.0),
            "afro": lambda: cls(0.06 + 1.1 * full, line, 0.90, 0.12, 0.40, 0.04, 0.0, 1.0, -0.2),
            "receding": lambda: cls(0.03 + 0.2 * volume, -0.88, 0.55, 0.04, 0.42),
            "bun": lambda: cls(0.035, line, 0.85, 0.02, 0.35),
        }
        return cuts[identity.hair_style]() if identity.hair_style in cuts else None

    def line(self, angle: np.ndarray) -> np.ndarray:
        """Height v where the hair ends, for each angle."""
        away = np.abs(angle)
        front = (
            self.front
            + self.lean * np.sin(1.7 * angle)
            + (0.05 if self.front > -0.36 else -0.05) * away * away
        )
        strands = 0.010 * np.sin(19 * angle + 1) + 0.007 * np.sin(37 * angle)
        if self.front < -0.8:  # receding: bare at the temples, a tongue of hair between
            front = front - 0.10 * smooth(0.0, 0.5, away)
        line = front + (self.side - front) * smooth(self.temple, self.temple + 0.42, away)
        return line + (self.back - self.side) * smooth(1.5, 1.95, away) + strands * (1 + 2 * self.curl)

    def covers(self, angle: np.ndarray, v: np.ndarray, softness: float = 0.022) -> np.ndarray:
        """1 where there is hair, 0 where there is none."""
        return smooth(softness, -softness, v - self.line(angle))


class Shell:
    """The surface of the hair (or of a hat), and where each ray meets it.

    Attributes:
        outline: coverage of its silhouette in [0, 1].
        near, far: head points (u, v, w) of the first and the last meeting.
    """

    def __init__(
        self, identity: Identity, rays: Rays, volume: float, lift: float, flare: float, curl: float
    ) -> None:
        self._rays = rays
        self._top = identity.head_height + 0.8 * volume + lift
        self._width = identity.head_width + volume + 0.01
        self._depth, self._back, self._flare = DEPTH + 0.7 * volume + 0.015, -0.05 - 0.2 * volume, flare
        v = np.arange(1024, dtype=np.float32) / 256 - 2
        self._section = 1 - np.clip(-v / self._top, 0, 1.8) ** 2.4
        self._inverse_square = 1 / (1 + self._flare * smooth(0.0, 1.1, v)) ** 2
        field, self.near = self._meet(1)
        _, self.far = self._meet(-1)
        self.outline = antialias(field - 0.07 * curl * _ripple(rays))

    def _profile(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = np.minimum(np.maximum((v + 2) * 256, 0), 1023).astype(np.int32)
        return self._section[index], self._inverse_square[index]

    def _meet(self, sign: int):
        rays = self._rays
        du, dv, dw = rays.direction
        t = np.full_like(rays.u0, 0.6 * sign)
        for _ in range(2):
            section, inverse = self._profile(rays.v0 + dv * t)
            iu, iw = inverse * (1 / self._width**2), inverse * (1 / self._depth**2)
            w0 = rays.w0 - self._back
            a = du * du * iu + dw * dw * iw
            b = rays.u0 * du * iu + w0 * dw * iw
            field = (b * b) / a - (rays.u0**2 * iu + w0 * w0 * iw - section)
            t = (sign * np.sqrt(np.maximum(field, 0) / a)) - b / a
        return field, rays.at(t)

    def angle(self, point) -> np.ndarray:
        """Direction of a point around the vertical axis, 0 in front, in [-pi, pi]."""
        return around(point[0] / self._width, (point[2] - self._back) / self._depth)

    def normals(self) -> tuple[np.ndarray, ...]:
        """Unit normals at the near points, in the camera's upright frame."""
        u, v, w = self.near
        up = np.maximum(v * (-1 / self._top), 0)
        lean = up * (0.4 + 0.6 * up) * (-2.4 / self._top)  # close to the slope of the section, up ** 1.4
        return to_camera(self._rays, 2 * u / self._width**2, lean, 2 * (w - self._back) / self._depth**2)


def around(u: np.ndarray, w: np.ndarray) -> np.ndarray:
    """atan2(u, w) for float32 arrays, in [-pi, pi]."""
    degrees = cv2.phase(np.ascontiguousarray(w, np.float32), np.ascontiguousarray(u, np.float32))
    return np.where(degrees > np.pi, degrees - np.float32(2 * np.pi), degrees)


def _ripple(rays: Rays) -> np.ndarray:
    angle = around(rays.xr, -rays.yr)
    return 1 + np.sin(17 * angle) + 0.7 * np.sin(29 * angle + 1.3)


def strands(angle: np.ndarray, v: np.ndarray, curl: float) -> np.ndarray:
    """Brightness of the hair's texture, about 1."""
    straight = np.sin(31 * angle + 2 * np.sin(3 * v)) + 0.7 * np.sin(53 * angle + 4 * v)
    if curl < 0.5:
        return 1 + (0.07 - 0.03 * curl) * straight + 0.10 * curl * np.sin(14 * v + 5 * angle)
    return (
        1
        + 0.15 * np.sin(25 * angle + 2 * np.sin(13 * v)) * np.sin(33 * v + 2 * np.sin(11 * angle))
        + 0.04 * straight
    )
