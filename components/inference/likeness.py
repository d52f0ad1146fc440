"""How alike two pictures are: the cosine of an identity network between the largest faces."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.face import Face, FaceConfig, IdentityEncoder, align_face, identity_onnx_path


class Likeness:
    """Compares pictures of people.

    Args:
        detect: Finds faces, largest first.
        encoder: The identity network.
    """

    def __init__(self, detect: Callable[[NDArray[np.uint8]], list[Face]], encoder: IdentityEncoder) -> None:
        self._detect, self._encoder = detect, encoder

    @classmethod
    def load(
        cls, face: FaceConfig, base: Path | None, detect: Callable[[NDArray[np.uint8]], list[Face]]
    ) -> "Likeness":
        """Loads the identity network of the face config or of the base; a ValueError if there is none."""
        return cls(detect, IdentityEncoder(identity_onnx_path(face, base)))

    def __call__(
        self, photo_uint8: NDArray[np.uint8], pictures_uint8: Sequence[NDArray[np.uint8]]
    ) -> list[float | None]:
        """Returns the similarity of each picture to the photo, -1 to 1; None where a picture shows no face.

        Args:
            photo_uint8: (H, W, 3) RGB.
            pictures_uint8: (H, W, 3) RGB each.

        Raises:
            ValueError: The photo shows no face.
        """
        reference = self._embed(photo_uint8)
        if reference is None:
            raise ValueError("no face found in the photo")
        found = [self._embed(picture) for picture in pictures_uint8]
        return [None if one is None else round(float(reference @ one), 4) for one in found]

    def _embed(self, picture_uint8: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        faces = self._detect(picture_uint8)
        if not faces:
            return None
        crop = align_face(picture_uint8, faces[0].landmarks_xy, self._encoder.input_size)
        return self._encoder.embed(crop[None])[0]
