"""Light: how bright a surface is from its normals."""

from dataclasses import dataclass

import numpy as np

from components.portraits.world.view import View


@dataclass(frozen=True)
class Light:
    """One lamp, a weak second one, and light from everywhere. Directions in the camera's upright frame."""

    key: tuple[float, float, float]
    fill: tuple[float, float, float]
    half: tuple[float, float, float]
    ambient: float

    @classmethod
    def of(cls, view: View) -> "Light":
        """The light of this view."""
        flat = np.cos(view.light_height)
        key = np.array(
            [np.sin(view.light_side) * flat, -np.sin(view.light_height), np.cos(view.light_side) * flat]
        )
        fill = np.array([-0.8 * key[0], -0.2, 0.6])
        half = key + np.array([0, 0, 1])
        unit = lambda a: tuple((a / np.linalg.norm(a)).tolist())  # noqa: E731
        return cls(unit(key), unit(fill), unit(half), view.ambient)

    def diffuse(self, normals: tuple[np.ndarray, ...]) -> np.ndarray:
        """Brightness of a dull surface, about 0.4 to 1.1."""
        key = np.maximum((_dot(normals, self.key) + 0.2) * (1 / 1.2), 0)
        return (
            self.ambient * (0.82 + 0.18 * normals[2])
            + 0.50 * key
            + 0.10 * np.maximum(_dot(normals, self.fill), 0)
        )

    def gloss(self, normals: tuple[np.ndarray, ...], doublings: int) -> np.ndarray:
        """Highlight in [0, 1]; its exponent is two to the power of `doublings`."""
        shine = np.maximum(_dot(normals, self.half), 0)
        for _ in range(doublings):
            shine *= shine
        return shine


def _dot(normals, direction) -> np.ndarray:
    return normals[0] * direction[0] + normals[1] * direction[1] + normals[2] * direction[2]
