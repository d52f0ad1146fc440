"""One photo -> the identity embedding of its main face: for questions of who is who, before any sample."""

import numpy as np

from components.face import FaceConfig, IdentityEncoder, align_face, decode_photo, load_detector
from components.prepare.config import PrepareConfig
from components.prepare.sources import Library
from components.prepare.stages import read_photo
from components.prepare.transforms import choose_faces


class FaceEmbedder:
    """Detector and identity network, loaded once.

    Args:
        config: Limits on files and faces.
        face: Which detector.
        identity_onnx: Path of the identity network.
    """

    def __init__(self, config: PrepareConfig, face: FaceConfig, identity_onnx: str) -> None:
        self._config = config
        self._detector, self._identity = load_detector(face), IdentityEncoder(identity_onnx)

    def embed(self, library: Library, file: str) -> tuple[bytes, np.ndarray]:
        """Returns the bytes of a photo and the embedding of its largest face, float32 (D,), unit norm.

        Raises:
            Reject: The photo cannot be read or has no usable face.
            PhotoError: It is no picture.
        """
        data = read_photo(library, file, self._config.max_file_mb)
        image = decode_photo(data, self._config.max_pixels)
        face = choose_faces(self._detector(image), "largest", self._config.min_face_px)[0]
        aligned = align_face(image, face.landmarks_xy, self._identity.input_size)
        return data, self._identity.embed(aligned[None])[0].astype(np.float32)
