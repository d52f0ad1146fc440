"""How alike two pictures are: the cosine of an identity network between the largest faces; the best of n."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
        reference = self.embed(photo_uint8)
        if reference is None:
            raise ValueError("no face found in the photo")
        return [None if one is None else round(one, 4) for one in self.to(reference, pictures_uint8)]

    def to(
        self, identity_D: NDArray[np.floating], pictures_uint8: Sequence[NDArray[np.uint8]]
    ) -> list[float | None]:
        """Returns the similarity of each picture to an embedding; None where a picture shows no face."""
        found = [self.embed(picture) for picture in pictures_uint8]
        return [None if one is None else float(identity_D @ one) for one in found]

    def best(self, identity_D: NDArray[np.floating], pictures_uint8: Sequence[NDArray[np.uint8]]) -> int:
        """Returns which picture is most like an embedding; the first if none shows a face."""
        similarities = [-2.0 if one is None else one for one in self.to(identity_D, pictures_uint8)]
        return int(np.argmax(similarities))

    def embed(self, picture_uint8: NDArray[np.uint8]) -> NDArray[np.floating] | None:
        """Returns the unit-norm embedding (D,) of the largest face of an RGB picture; None without a face."""
        faces = self._detect(picture_uint8)
        return self.embed_face(picture_uint8, faces[0]) if faces else None

    def embed_face(self, picture_uint8: NDArray[np.uint8], face: Face) -> NDArray[np.floating]:
        """Returns the unit-norm embedding (D,) of a face that has been found."""
        crop = align_face(picture_uint8, face.landmarks_xy, self._encoder.input_size)
        return self._encoder.embed(crop[None])[0]


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Returns a Pillow image as (H, W, 3) RGB."""
    return np.asarray(image.convert("RGB"))
