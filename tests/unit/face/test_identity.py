from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from components.face import FaceConfig, IdentityEncoder, identity_onnx_path


def write_net(path: Path, side: int = 112, batch: int | str = "B", outputs: int = 1) -> Path:
    """A net that returns the mean of each colour plane, so that a swap of channels shows."""
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    values = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])]
    if outputs == 2:
        nodes.append(helper.make_node("Identity", ["y"], ["z"]))
        values.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, 3]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])
    model = helper.make_model(
        helper.make_graph(nodes, "net", [x], values),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["B", 1, 2])
def test_input_is_rgb_in_minus_one_to_one_and_output_has_length_one(tmp_path: Path, batch: int | str) -> None:
    encoder = IdentityEncoder(write_net(tmp_path / "net.onnx", batch=batch))
    faces = np.zeros((3, 112, 112, 3), np.uint8)
    faces[0, ..., 0] = 255  # red
    faces[1, ..., 2] = 255  # blue
    found = encoder.embed(faces)
    expected = np.array([[1, -1, -1], [-1, -1, 1], [-1, -1, -1]], np.float32) / np.sqrt(3)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert (encoder.size, encoder.input_size) == (3, 112)


def test_wrong_pictures_are_refused(tmp_path: Path) -> None:
    encoder = IdentityEncoder(write_net(tmp_path / "net.onnx"))
    for wrong in (np.zeros((1, 112, 112, 3), np.float32), np.zeros((1, 64, 64, 3), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            encoder.embed(wrong)


@pytest.mark.parametrize("settings", [{"side": 96}, {"outputs": 2}])
def test_other_networks_are_refused(tmp_path: Path, settings: dict) -> None:
    with pytest.raises(ValueError, match="no ArcFace-style network"):
        IdentityEncoder(write_net(tmp_path / "net.onnx", **settings))


def test_a_missing_or_broken_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no ONNX file"):
        IdentityEncoder(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("this is no model")
    with pytest.raises(ValueError, match="cannot be opened"):
        IdentityEncoder(tmp_path / "text.onnx")


def test_which_network_is_taken(tmp_path: Path) -> None:
    base, pack = tmp_path / "base", tmp_path / "pack"
    own = write_net(tmp_path / "own.onnx")
    in_base = write_net(base / "face_pack" / "identity.onnx")
    write_net(base / "face_pack" / "judge.onnx")
    write_net(pack / "a_genderage.onnx", side=96)
    in_pack = write_net(pack / "w600k.onnx")
    assert identity_onnx_path(FaceConfig(), base) == in_base
    assert identity_onnx_path(FaceConfig(pack=str(pack)), base) == in_pack
    assert identity_onnx_path(FaceConfig(pack=str(pack), identity_onnx=str(own)), base) == own
    with pytest.raises(ValueError, match=r"no identity network at face\.identity_onnx"):
        identity_onnx_path(FaceConfig(identity_onnx=str(tmp_path / "absent.onnx")), base)
    with pytest.raises(ValueError, match="looked in"):
        identity_onnx_path(FaceConfig(), tmp_path / "elsewhere")
