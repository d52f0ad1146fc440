"""From a person and a view to a picture, its face mask, landmarks, caption and attributes."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from components.portraits.world import body
from components.portraits.world.caption import attributes_of, caption_of, details_of, prompt_of
from components.portraits.world.hair import Cut, Shell, around, strands
from components.portraits.world.identity import Identity, draw_identity
from components.portraits.world.paint import paint_face
from components.portraits.world.palette import HAIR_COLOURS, HAT_COLOURS, rgb01, skin_colour
from components.portraits.world.shade import Light
from components.portraits.world.shape import DEPTH, Expression, Head, Rays, antialias, look_up, smooth
from components.portraits.world.view import View, draw_view

_NOISE_NAMESPACE, _SWAP_NAMESPACE = 7304, 811
NOTHING = np.zeros((), np.float32)
_HAT_LINE = -0.36


@dataclass(frozen=True)
class Portrait:
    """A picture and what is known of it.

    Attributes:
        image_uint8: (H, W, 3) RGB.
        face_mask: (H, W) bool, the visible face with eyes, mouth, beard, glasses; no hair, hat, ears, neck.
        landmarks_xy: (5, 2) float32 pixels: viewer-left eye, viewer-right eye, nose tip, viewer-left corner
            of the mouth, viewer-right corner.
        caption: a sentence. prompt: the same with S* for the person. details: short phrases on finer traits.
        attributes: what can be checked.
    """

    image_uint8: np.ndarray
    face_mask: np.ndarray
    landmarks_xy: np.ndarray
    caption: str
    prompt: str
    details: tuple[str, ...]
    attributes: dict[str, str | bool]


def portrait(identity_seed: int, view_seed: int, size: int = 128, glasses_swap: float = 0.0) -> Portrait:
    """The picture of one person in one view; the same arguments give the same picture.

    Args:
        identity_seed: who.
        view_seed: how.
        size: side of the picture in pixels.
        glasses_swap: share of views in which glasses are put on or taken off, 0 to 1.
    """
    identity = draw_identity(identity_seed)
    view = draw_view(view_seed, identity)
    if np.random.default_rng([_SWAP_NAMESPACE, identity_seed, view_seed]).random() < glasses_swap:
        view = replace(view, glasses=identity.glasses == "none")
    return render(identity, view, size)


def render(identity: Identity, view: View, size: int = 128) -> Portrait:
    """Draws a person as seen in a view.

    Args:
        identity: who.
        view: how.
        size: side of the picture in pixels.
    """
    mouth = Expression.of(identity, view)
    head, rays = Head(identity, mouth), Rays(view, size)
    picture, skin_visible = _Scene(identity, view, head, rays).draw()
    return Portrait(
        image_uint8=_expose(picture, view),
        face_mask=skin_visible > 0.5,
        landmarks_xy=rays.project(_landmarks(identity, head, mouth)),
        caption=caption_of(identity, view),
        prompt=prompt_of(identity, view),
        details=details_of(identity, view),
        attributes=attributes_of(identity, view),
    )


def _landmarks(identity: Identity, head: Head, mouth: Expression) -> np.ndarray:
    corner = mouth.half_width * 0.95, mouth.level - mouth.curl
    tip = identity.eye_level + identity.nose_length - 0.045
    eye = identity.eye_spacing, identity.eye_level
    places = (-eye[0], eye[1]), eye, (0.0, tip), (-corner[0], corner[1]), corner
    return np.array([(u, v, head.front(u, v)) for u, v in places])


def _expose(picture: np.ndarray, view: View) -> np.ndarray:
    """The camera: white balance, exposure, noise. Linear colours to uint8."""
    gain = view.exposure * np.array([1 + view.warmth, 1, 1 - view.warmth], np.float32)
    rng = np.random.default_rng([_NOISE_NAMESPACE, view.seed])
    noisy = picture * gain.astype(np.float32) + rng.standard_normal(picture.shape, np.float32) * np.float32(
        view.noise
    )
    return (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)


class _Scene:
    """The layers of one picture, drawn from the wall to the brim of the hat."""

    def __init__(self, identity: Identity, view: View, head: Head, rays: Rays) -> None:
        self.identity, self.view, self.head, self.rays = identity, view, head, rays
        self.light = Light.of(view)
        self.skin = skin_colour(identity.skin_tone, identity.skin_warmth)
        self.hair = np.clip(rgb01(HAIR_COLOURS[identity.hair_colour]) * identity.hair_shade, 0, 1).astype(
            np.float32
        )
        self.cut = Cut.of(identity)
        cut = self.cut
        self.shell = Shell(identity, rays, cut.volume, cut.lift, cut.flare, cut.curl) if cut else None

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """The picture (H, W, 3) float32 and how much of the face's skin is seen in each pixel (H, W)."""
        picture = body.background(self.view, self.rays.size)
        self._behind(picture)
        visible = np.zeros(picture.shape[:2], np.float32)
        window = self.rays.around_head()
        visible[window] = self._face(picture[window], self.rays.cropped(window))
        visible *= 1 - self._front_hair(picture)
        return picture, visible * (1 - self._hat(picture))

    def _behind(self, picture: np.ndarray) -> None:
        side = self.light.key[0]
        if self.shell and self.cut:
            angle, v = self.shell.angle(self.shell.far), self.shell.far[1]
            tone = 0.58 * self.light.ambient / 0.54 * strands(angle, v, self.cut.curl)
            body.over(
                picture, self.hair * tone[..., None], self.cut.covers(angle, v, 0.03) * self.shell.outline
            )
        if self.identity.hair_style == "bun" and self.identity.hat == "none":
            body.over(picture, *body.bun(self.identity, self.rays, self.hair, side))
        body.over(picture, *body.neck(self.identity, self.rays, side, self.view.ambient, self.skin))
        body.over(picture, *body.clothes(self.identity, self.view, self.rays, side))

    def _face(self, picture: np.ndarray, rays: Rays) -> np.ndarray:
        cover = antialias(self.head.silhouette(rays))
        t = self.head.hit(rays)
        u, v, w = rays.at(t)
        normals = self.head.normals(rays, u, v, w)
        bright = self.light.diffuse(normals)
        # Under the chin the surface looks down, not back: without the shift the hair would grow there.
        angle = around(u / self.identity.head_width, w / DEPTH + 0.5 * smooth(0.2, 0.8, v))
        scalp = np.zeros_like(bright)
        if self.cut:
            scalp = self.cut.covers(angle, v)
            bright = bright * (1 - 0.22 * smooth(0.16, 0.0, v - self.cut.line(angle)) * (1 - scalp))
        colour = self._skin_colours(u, v) * bright[..., None]
        colour += (0.09 * self.light.gloss(normals, 4) * (1 - scalp))[..., None]
        if self.cut:
            body.over(colour, self.hair * (bright * strands(angle, v, self.cut.curl))[..., None], scalp)
        colour -= 0.5 * np.maximum(colour - 0.8, 0)  # bright skin keeps its colour
        body.over(picture, colour, cover)
        ears = self._ears(picture, rays, np.where(cover > 0.4, t, np.float32(-9)))
        return cover * (1 - scalp) * (1 - ears) * (np.abs(angle) < 1.55)

    def _skin_colours(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Painted colours at twice the picture's resolution, averaged down."""
        table = paint_face(self.identity, self.view, self.head.mouth)
        fine = (cv2.resize(a, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR) for a in (u, v))
        return cv2.resize(look_up(table, *fine), u.shape[::-1], interpolation=cv2.INTER_AREA)

    def _ears(self, picture: np.ndarray, rays: Rays, depth: np.ndarray) -> np.ndarray:
        if self.cut and self.cut.side > 0.15:
            return NOTHING
        half_width = float(self.head.profile(np.float32(self.identity.eye_level + 0.1))[1])
        covers = []
        for side in (-1, 1):
            args = self.identity, rays, side, depth, half_width, self.light.key[0], self.skin
            colour, cover = body.ear(*args)
            body.over(picture, colour, cover)
            covers.append(cover)
        return np.maximum(*covers)

    def _front_hair(self, picture: np.ndarray) -> np.ndarray:
        if not (self.shell and self.cut):
            return NOTHING
        angle, v = self.shell.angle(self.shell.near), self.shell.near[1]
        cover = self.cut.covers(angle, v) * self.shell.outline
        normals = self.shell.normals()
        texture = strands(angle, v, self.cut.curl)
        bright = self.light.diffuse(normals) * texture * (1 - 0.25 * smooth(0.3, 1.2, v))
        shine = 0.11 * self.light.gloss(normals, 3) * texture * (1 - 0.7 * self.cut.curl)
        body.over(
            picture, self.hair * bright[..., None] + (shine * (0.4 + self.hair.mean()))[..., None], cover
        )
        return cover

    def _hat(self, picture: np.ndarray) -> np.ndarray:
        identity = self.identity
        if identity.hat == "none":
            return NOTHING
        colour = rgb01(HAT_COLOURS[identity.hat_colour])
        volume = (self.cut.volume if self.cut else 0.0) + 0.05
        shell = Shell(identity, self.rays, volume, 0.10 if identity.hat != "cap" else 0.04, 0.0, 0.0)
        angle, v = shell.angle(shell.near), shell.near[1]
        below = v - (_HAT_LINE + 0.10 * smooth(0.5, 2.5, np.abs(angle)))
        cover = smooth(0.015, -0.015, below) * shell.outline
        bright = self.light.diffuse(shell.normals()) * _weave(identity.hat, angle, below)
        layers = [(colour * bright[..., None], cover)]
        if identity.hat != "beanie":
            edge = body.brim(self.rays, _HAT_LINE, identity.hat, colour, self.light.key[0])
            layers.insert(0 if identity.hat == "brimmed hat" else 1, edge)
        for layer in layers:
            body.over(picture, *layer)
        return np.maximum.reduce([layer[1] for layer in layers])


def _weave(hat: str, angle: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Texture of the hat's cloth: ribs and a turned-up edge, or a band."""
    if hat == "beanie":
        return (0.92 + 0.07 * np.sin(44 * angle)) * (1 - 0.16 * smooth(-0.20, -0.17, below))
    if hat == "brimmed hat":
        return 1 - 0.55 * smooth(-0.20, -0.18, below)
    return 0.97 + 0.05 * np.cos(6 * angle)
