"""The judges: find the face of a picture, and turn it into vectors that say who it is.

Each judge is a function from pictures and their faces to unit vectors; a picture without a face gets the zero
vector (see metrics). The identity judge may have been a loss of the training, so others that training never
saw stand beside it: a second recogniser where the base folder has one, and a colour histogram of the face.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.core import sha256_file
from components.evaluation.metrics import colour_histograms
from components.face import Face, FaceConfig, IdentityEncoder, align_face, identity_onnx_path

Landmarks = NDArray[np.float32]


@dataclass(frozen=True)
class Sighting:
    """A picture and where its face is.

    Attributes:
        picture_uint8: (H, W, 3) RGB.
        landmarks_xy: (5, 2) pixels; None where no face was found.
        detected: False where the landmarks are those of the record and not of the detector.
    """

    picture_uint8: NDArray[np.uint8]
    landmarks_xy: Landmarks | None
    detected: bool


class Judge(Protocol):
    """Turns sightings into vectors of who it is.

    Attributes:
        name: "identity", "second" or "colour".
        mark: Identity of the judge itself: figures of judges with different marks are not compared.
    """

    name: str
    mark: str

    def __call__(self, sightings: Sequence[Sighting]) -> NDArray[np.float64]:
        """Returns (N, D): unit vectors, zero where there is no face."""
        ...


class FaceFinder:
    """Looks for the largest face of a picture with a detector of `components.face`."""

    def __init__(self, detect: Callable[[NDArray[np.uint8]], list[Face]]) -> None:
        self._detect = detect

    def __call__(self, picture_uint8: NDArray[np.uint8], fallback_xy: Landmarks | None = None) -> Sighting:
        """Finds the face.

        Args:
            picture_uint8: (H, W, 3) RGB.
            fallback_xy: (5, 2) landmarks, taken where the detector finds nothing. For real photos, whose face
                is known; never for generated pictures.
        """
        faces = self._detect(picture_uint8)
        if faces:
            return Sighting(picture_uint8, faces[0].landmarks_xy, detected=True)
        return Sighting(picture_uint8, fallback_xy, detected=False)


def _rows(
    sightings: Sequence[Sighting], embed: Callable[[NDArray[np.uint8]], NDArray], side: int = 112
) -> NDArray[np.float64]:
    """Embeds the aligned faces in batches and puts zero rows where there is none."""
    found, faces = [], []
    for i, sighting in enumerate(sightings):
        if sighting.landmarks_xy is not None:
            found.append(i)
            faces.append(align_face(sighting.picture_uint8, sighting.landmarks_xy, side))
    parts = [embed(np.stack(faces[start : start + 64])) for start in range(0, len(faces), 64)]
    width = parts[0].shape[1] if parts else 1
    vectors = np.zeros((len(sightings), width))
    if parts:
        vectors[found] = np.concatenate(parts)
    return vectors


class RecogniserJudge:
    """An ArcFace-style ONNX recogniser on the aligned face."""

    def __init__(self, name: str, onnx_path: Path, device: str = "cpu") -> None:
        self.name, self.mark = name, sha256_file(onnx_path)[:16]
        self._encoder = IdentityEncoder(onnx_path, device=device)

    def __call__(self, sightings: Sequence[Sighting]) -> NDArray[np.float64]:
        """Returns (N, D): unit vectors, zero where there is no face."""
        return _rows(sightings, self._encoder.embed, self._encoder.input_size)


class ColourJudge:
    """Colours of skin, brows, eyes and the hair that frames them: an RGB histogram of the aligned face.

    An ellipse keeps the background out. Cosine of two vectors = Bhattacharyya coefficient, in [0, 1]: its
    floor is far above 0, because faces share colours.
    """

    def __init__(self, bins: int) -> None:
        self.name, self.mark = "colour", f"histogram of {bins} bins an axis"
        self._bins = bins

    def __call__(self, sightings: Sequence[Sighting]) -> NDArray[np.float64]:
        """Returns (N, bins**3): unit vectors, zero where there is no face."""
        return _rows(sightings, lambda faces: colour_histograms(faces, _ellipse(faces.shape[1]), self._bins))


def _ellipse(side: int) -> NDArray[np.float64]:
    """Returns (side, side): 1 inside an ellipse over the aligned face, 0 outside."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    return ((x / 0.85) ** 2 + (y / 1.0) ** 2 <= 1).astype(np.float64)


def load_judges(
    face: FaceConfig,
    base_folder: Path,
    *,
    identity_onnx: str | None,
    judge_onnx: str | None,
    colour_bins: int,
    device: str = "cpu",
) -> list[Judge]:
    """Returns the judges: "identity" first, "second" where there is a second recogniser, "colour".

    Raises:
        ValueError: There is no recogniser at the place named, or none is named and the base folder has none.
    """
    identity = Path(identity_onnx) if identity_onnx else identity_onnx_path(face, base_folder)
    second = Path(judge_onnx) if judge_onnx else base_folder / "face_pack" / "judge.onnx"
    if judge_onnx and not second.is_file():
        raise ValueError(f"no second recogniser at {second}: mend evaluation.judge_onnx or leave it out")
    judges: list[Judge] = [RecogniserJudge("identity", identity, device)]
    if second.is_file() and second.resolve() != identity.resolve():
        judges.append(RecogniserJudge("second", second, device))
    return [*judges, ColourJudge(colour_bins)]
