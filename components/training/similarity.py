"""How much of a person sample pictures keep: cosine of their identity and that of the reference photo."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.face import FaceConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Similarity:
    """Over the pictures of a grid.

    Attributes:
        mean: Mean over people of the mean over their pictures; a picture without a face counts as 0, so that
            losing faces is no way to a better figure.
        found: Share of the pictures in which a face is found.
    """

    mean: float
    found: float


class PictureIdentity:
    """Detects, aligns and embeds the faces of pictures. Loaded at its first use.

    Args:
        config: Detector and identity network.
        base: Folder of the base model, whose pack serves if none is configured; None for a hub id.
        device: Where the networks run.
    """

    def __init__(self, config: FaceConfig, base: Path | None, device: str = "cpu") -> None:
        self._config, self._base, self._device = config, base, device
        self._networks: tuple[Any, Any] | None = None
        self._missing = False

    def measure(
        self, pictures: NDArray[np.uint8], references: Sequence[NDArray[np.float32]]
    ) -> Similarity | None:
        """Returns the similarity; None where there is no detector or no identity network.

        Args:
            pictures: (S, n, H, W, 3) RGB, n of each person.
            references: S unit-norm embeddings (D,) of the reference photos.
        """
        networks = self._load()
        if networks is None:
            return None
        from components.face import align_face

        detect, encoder = networks
        people, count = pictures.shape[:2]
        cosines, found = np.zeros((people, count)), np.zeros((people, count), dtype=bool)
        for person, reference in enumerate(references):
            for number, picture in enumerate(pictures[person]):
                faces = detect(picture)
                if not faces:
                    continue
                aligned = align_face(picture, faces[0].landmarks_xy, encoder.input_size)
                found[person, number] = True
                cosines[person, number] = float(encoder.embed(aligned[None])[0] @ reference)
        return Similarity(float(cosines.mean()), float(found.mean()))

    def _load(self) -> tuple[Any, Any] | None:
        if self._networks is None and not self._missing:
            from components.face import IdentityEncoder, identity_onnx_path, load_detector

            try:
                encoder = IdentityEncoder(identity_onnx_path(self._config, self._base), self._device)
                self._networks = load_detector(self._config, self._device), encoder
            except ValueError as error:  # training does without; the grid is drawn all the same
                logger.warning("identity similarity is not measured: %s", error)
                self._missing = True
        return self._networks
