"""A pack folder through the real insightface code, on ONNX files that answer by arithmetic."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from components.face import FaceConfig, load_detector

SIDE = 640  # insightface's detection size here; strides 8, 16, 32 with two anchors a cell
ANCHOR = (12 * 20 + 5) * 2  # stride 32, row 12, column 5: the point (160, 384)
LANDMARKS = np.array([[-20, -15], [20, -15], [0, 0], [-15, 20], [15, 20]], np.float32)


def save(path: Path, nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> None:
    initializers = [
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()
    ]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def write_detector(path: Path) -> None:
    """Finds one face, 128 px around (160, 384); its score is the mean of the red plane in [-1, 1]."""
    cells = {8: 12800, 16: 3200, 32: 800}
    spot = np.zeros((800, 1))
    spot[ANCHOR] = 1
    constants: dict[str, np.ndarray] = {"spot": spot}
    # Slicing picks the first plane: red, if the picture reaches the network as RGB.
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["planes"], axes=[2, 3], keepdims=0),
        helper.make_node("Split", ["planes"], ["red", "green", "blue"], axis=1),
        helper.make_node("Mul", ["spot", "red"], ["score_32"]),
    ]
    for stride, count in cells.items():
        constants[f"box_{stride}_c"] = np.full((count, 4), 64 / stride)
        constants[f"points_{stride}_c"] = np.tile(LANDMARKS.ravel() / stride, (count, 1))
        nodes += [
            helper.make_node("Identity", [f"{k}_{stride}_c"], [f"{k}_{stride}"]) for k in ("box", "points")
        ]
        if stride != 32:
            constants[f"score_{stride}_c"] = np.zeros((count, 1))
            nodes.append(helper.make_node("Identity", [f"score_{stride}_c"], [f"score_{stride}"]))
    widths = {"score": 1, "box": 4, "points": 10}
    outputs = [
        helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, [f"n{stride}", width])
        for kind, width in widths.items()
        for stride in cells
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])
    save(path, nodes, [x], outputs, constants)


def write_landmarks_106(path: Path) -> None:
    """106 points in the middle of its 192 px crop (0 in [-1, 1])."""
    nodes = [
        helper.make_node("ReduceMean", ["data"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "none"], ["nothing"]),
        helper.make_node("Add", ["nothing", "points"], ["fc1"]),
    ]
    x = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 192, 192])
    y = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 212])
    save(path, nodes, [x], [y], {"none": np.zeros(1), "points": np.zeros((1, 212))})


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_detector(tmp_path / "det.onnx")
    return tmp_path


def picture(plane: int, side: int = SIDE) -> np.ndarray:
    image = np.zeros((side, side, 3), np.uint8)
    image[..., plane] = 255
    return image


def test_a_red_picture_reaches_the_network_red(pack: Path) -> None:
    detector = load_detector(FaceConfig(detector="insightface", pack=str(pack)))
    (face,) = detector(picture(plane=0))
    np.testing.assert_allclose(face.bbox_xyxy, [96, 320, 224, 448], atol=1e-3)
    np.testing.assert_allclose(face.landmarks_xy, LANDMARKS + [160, 384], atol=1e-3)
    assert face.score > 0.9
    assert face.contour_xy is None
    assert detector(picture(plane=2)) == []  # blue: had BGR been passed on, this would be the one


def test_faces_are_in_original_pixels(pack: Path) -> None:
    detector = load_detector(FaceConfig(detector="insightface", pack=str(pack)))
    (face,) = detector(picture(plane=0, side=1280))
    np.testing.assert_allclose(face.landmarks_xy, 2 * (LANDMARKS + [160, 384]), atol=1e-2)


def test_dense_landmarks_come_along_where_the_pack_has_them(pack: Path) -> None:
    write_landmarks_106(pack / "2d106det.onnx")
    (face,) = load_detector(FaceConfig(detector="insightface", pack=str(pack)))(picture(plane=0))
    assert face.contour_xy.shape == (106, 2)
    np.testing.assert_allclose(face.contour_xy, np.tile([160, 384], (106, 1)), atol=1)


def test_a_pack_without_a_detector_is_explained(tmp_path: Path) -> None:
    write_landmarks_106(tmp_path / "2d106det.onnx")
    with pytest.raises(ValueError, match=r"no detector in the insightface pack .* it holds 2d106det\.onnx"):
        load_detector(FaceConfig(detector="insightface", pack=str(tmp_path)))
