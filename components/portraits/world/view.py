"""How a person is seen: what changes from picture to picture (pose, light, face, background, camera)."""

from dataclasses import dataclass

import numpy as np

from components.portraits.world.identity import Identity
from components.portraits.world.palette import BACKGROUNDS

_NAMESPACE = 7302


@dataclass(frozen=True)
class View:
    """One sight of a person. Angles in radians; positive yaw turns the face to the viewer's right."""

    seed: int
    yaw: float
    pitch: float
    roll: float
    light_side: float
    light_height: float
    ambient: float
    warmth: float
    exposure: float
    smile: float
    mouth_open: float
    blink: float
    gaze: float
    background: str
    background_slope: float
    background_angle: float
    cloth_rgb: tuple[float, float, float]
    scale: float
    shift_x: float
    shift_y: float
    noise: float
    glasses: bool | None = None
    """None: as the person is. True or False puts glasses on or takes them off."""


def draw_view(seed: int, identity: Identity | None = None) -> View:
    """The view of this seed.

    Args:
        seed: any integer that is not negative.
        identity: when given, the draw belongs to this person, so that view 0 of two people is not the same.
    """
    rng = np.random.default_rng([_NAMESPACE, 0 if identity is None else identity.seed + 1, seed])
    smiling = bool(rng.random() < 0.5)
    opened = rng.random() < (0.9 if smiling else 0.1)
    names = tuple(BACKGROUNDS)
    return View(
        seed=seed,
        yaw=float(np.clip(rng.normal(0, 0.26), -0.6, 0.6)),
        pitch=float(np.clip(rng.normal(0, 0.10), -0.25, 0.25)),
        roll=float(np.clip(rng.normal(0, 0.06), -0.18, 0.18)),
        light_side=float(rng.uniform(-1.0, 1.0)),
        light_height=float(rng.uniform(0.15, 0.8)),
        ambient=float(rng.uniform(0.46, 0.62)),
        warmth=float(np.clip(rng.normal(0, 0.035), -0.08, 0.08)),
        exposure=float(rng.uniform(0.92, 1.08)),
        smile=float(rng.uniform(0.75, 1.0) if smiling else np.clip(rng.normal(0.02, 0.05), -0.1, 0.12)),
        mouth_open=float(rng.uniform(0.45, 1.0)) if opened else 0.0,
        blink=float(rng.uniform(0, 0.55)) if rng.random() < 0.15 else float(rng.uniform(0, 0.1)),
        gaze=float(np.clip(rng.normal(0, 0.3), -0.8, 0.8)),
        background=names[int(rng.integers(len(names)))],
        background_slope=float(rng.uniform(0.02, 0.16)),
        background_angle=float(rng.uniform(0, 2 * np.pi)),
        cloth_rgb=(
            float(rng.uniform(0.12, 0.85)),
            float(rng.uniform(0.12, 0.85)),
            float(rng.uniform(0.12, 0.85)),
        ),
        scale=float(rng.uniform(0.95, 1.06)),
        shift_x=float(np.clip(rng.normal(0, 0.03), -0.07, 0.07)),
        shift_y=float(np.clip(rng.normal(0, 0.025), -0.06, 0.06)),
        noise=float(rng.uniform(0, 0.01)),
    )
