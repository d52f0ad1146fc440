"""The ONNX interpreter against onnxruntime; its gradients against the torch network the ONNX came from."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from components.face.onnx_torch import OnnxModule, load_arcface

PORTRAIT_PACK = Path(__file__).parents[3] / "components" / "portraits" / "base" / "face_pack"


class Block(nn.Module):
    """iresnet's block: BN, conv, BN, PReLU, strided conv, BN, and a strided shortcut."""

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(width_in, eps=2e-5),
            nn.Conv2d(width_in, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width, eps=2e-5),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width, eps=2e-5),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


class TinyIresnet(nn.Module):
    def __init__(self, size=32):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.blocks = nn.Sequential(Block(8, 8, 2), Block(8, 16, 2))
        self.norm, self.drop = nn.BatchNorm2d(16), nn.Dropout(0.4)
        self.fc, self.features = nn.Linear(16 * (size // 4) ** 2, 24), nn.BatchNorm1d(24)

    def forward(self, x):
        x = self.norm(self.blocks(self.stem(x)))
        return self.features(self.fc(self.drop(torch.flatten(x, 1))))


class Mobile(nn.Module):
    """The operators of mobile networks, with a reshape by the dynamic batch size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.pool, self.fc = nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Linear(8, 6)

    def forward(self, x):
        x = nn.functional.hardswish(self.conv(x))
        x = nn.functional.relu6(self.depthwise(x)) * torch.sigmoid(x) - 0.1 * nn.functional.leaky_relu(x)
        x = nn.functional.max_pool2d(self.pool(x), 2) / 2
        x = nn.functional.adaptive_avg_pool2d(x, 1)
        x = self.fc(x.view(x.shape[0], -1))
        return x / x.norm(dim=1, keepdim=True)


def randomised(network):
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def exported(network, path, size=32, opset=17):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, torch.zeros(2, 3, size, size), str(path), dynamo=False, opset_version=opset,
            input_names=["data"], output_names=["fc1"], dynamic_axes={"data": {0: "B"}, "fc1": {0: "B"}},
        )  # fmt: skip
    return path


def onnxruntime_output(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize(("network", "opset"), [(TinyIresnet, 11), (TinyIresnet, 17), (Mobile, 17)])
def test_equals_onnxruntime(tmp_path, network, opset):
    path = exported(randomised(network()), tmp_path / "net.onnx", opset=opset)
    images = np.random.default_rng(0).uniform(-1, 1, (5, 3, 32, 32)).astype(np.float32)
    ours = load_arcface(path).network(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(ours, onnxruntime_output(path, images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["identity", "judge"])
def test_the_networks_of_the_portrait_world_equal_onnxruntime(name):
    path = PORTRAIT_PACK / f"{name}.onnx"
    size = onnxruntime.InferenceSession(str(path)).get_inputs()[0].shape[-1]
    images = np.random.default_rng(0).uniform(-1, 1, (3, 3, size, size)).astype(np.float32)
    arcface = load_arcface(path)
    given = torch.from_numpy(images).requires_grad_()
    ours = arcface.network(given)
    np.testing.assert_allclose(ours.detach().numpy(), onnxruntime_output(path, images), atol=1e-5, rtol=1e-5)
    arcface.embed(given)[:, 0].sum().backward()
    assert given.grad is not None
    assert bool(given.grad.isfinite().all())
    assert bool((given.grad != 0).any())


def test_gradients_equal_those_of_the_torch_network(tmp_path):
    network = randomised(TinyIresnet()).double()
    module = OnnxModule(onnx.load(exported(randomised(TinyIresnet()), tmp_path / "net.onnx"))).double()
    network.load_state_dict({k: v.double() for k, v in randomised(TinyIresnet()).state_dict().items()})
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64) * 2 - 1
    weights = torch.randn(2, 24, dtype=torch.float64)
    grads = []
    for net in (network, module):
        x = images.clone().requires_grad_()
        (net(x) * weights).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(
        grads[0], grads[1], atol=1e-5, rtol=1e-4
    )  # exported weights are float32 and fused


def test_numerical_gradient_on_a_small_input(tmp_path):
    module = OnnxModule(onnx.load(exported(randomised(Mobile()), tmp_path / "net.onnx", size=16))).double()
    x = (torch.rand(1, 3, 16, 16, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,), eps=1e-7, atol=1e-4, nondet_tol=0, fast_mode=True)


def test_frozen_and_movable(tmp_path):
    arcface = load_arcface(exported(randomised(TinyIresnet()), tmp_path / "net.onnx"))
    assert not list(arcface.parameters())
    assert arcface.double()(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64
    images = torch.rand(4, 3, 32, 32).double()
    torch.testing.assert_close(arcface.embed(images).norm(dim=1), torch.ones(4))
    torch.testing.assert_close(arcface(images)[2:3], arcface(images[2:3]))


def test_a_graph_that_normalises_for_itself_gets_raw_pixels(tmp_path):
    constants = [
        helper.make_tensor(n, TensorProto.FLOAT, [1], [v]) for n, v in (("m", 127.5), ("s", 1 / 128))
    ]
    nodes = [helper.make_node("Sub", ["data", "m"], ["a"]), helper.make_node("Mul", ["a", "s"], ["b"]),
             helper.make_node("Flatten", ["b"], ["fc1"])]  # fmt: skip
    path = tmp_path / "raw.onnx"
    onnx.save(make_model(nodes, constants), str(path))
    embedding = load_arcface(path)(torch.ones(1, 3, 2, 2))
    torch.testing.assert_close(embedding, torch.full((1, 12), 127.5 / 128))


def make_model(nodes, initializers=()):
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["B", 3, 2, 2])
    out = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [data], [out], list(initializers)))


def test_unknown_operator_is_named(tmp_path):
    onnx.save(
        make_model([helper.make_node("Einsum", ["data"], ["fc1"], equation="abcd->a")]),
        str(tmp_path / "x.onnx"),
    )
    with pytest.raises(ValueError, match=r"x\.onnx.*not known here: Einsum; known: Add"):
        load_arcface(tmp_path / "x.onnx")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ValueError, match=r"no identity network at .*none\.onnx"):
        load_arcface(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"bad\.onnx is not a readable ONNX model"):
        load_arcface(tmp_path / "bad.onnx")


CASES = {
    "pads_asymmetric": ([helper.make_node("Conv", ["data", "w"], ["fc1"], pads=[0, 1, 2, 1])], (4, 3, 2, 2)),
    "same_upper": ([helper.make_node("Conv", ["data", "w"], ["fc1"], auto_pad="SAME_UPPER", strides=[2, 2])],
                   (4, 3, 2, 2)),
    "reduce_keep": ([helper.make_node("ReduceMean", ["data"], ["fc1"], axes=[2, 3], keepdims=0)], None),
    "clip": ([helper.make_node("Clip", ["data", "lo", ""], ["fc1"])], None),
    "gemm": ([helper.make_node("Flatten", ["data"], ["f"]),
              helper.make_node("Gemm", ["f", "w", "c"], ["fc1"], transB=1, alpha=0.5, beta=2.0)], (5, 48)),
    "slice_concat": ([helper.make_node("Slice", ["data", "s0", "s1", "ax"], ["t"]),
                      helper.make_node("Concat", ["t", "data"], ["u"], axis=3),
                      helper.make_node("Transpose", ["u"], ["fc1"], perm=[0, 2, 3, 1])], None),
    "gather_unsqueeze": ([helper.make_node("Gather", ["data", "s1"], ["g"], axis=1),
                          helper.make_node("Unsqueeze", ["g", "ax"], ["fc1"])], None),
    "prelu_channel": ([helper.make_node("PRelu", ["data", "slope"], ["fc1"])], None),
    "hard_sigmoid": ([helper.make_node("HardSigmoid", ["data"], ["fc1"], alpha=0.3, beta=0.4)], None),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(CASES))
def test_operator_equals_onnxruntime(tmp_path, case):
    nodes, weight_shape = CASES[case]
    rng = np.random.default_rng(1)
    used = {name for node in nodes for name in node.input}
    values = {
        "w": rng.normal(size=weight_shape or (1,)).astype(np.float32),
        "c": rng.normal(size=5).astype(np.float32),
        "lo": np.array(-0.2, np.float32),
        "s0": np.array([1], np.int64),
        "s1": np.array([3], np.int64) if case == "slice_concat" else np.array([2, -1], np.int64),
        "ax": np.array([3], np.int64) if case == "slice_concat" else np.array([0, 5], np.int64),
        "slope": rng.normal(size=(3, 1, 1)).astype(np.float32),
    }
    constants = [onnx.numpy_helper.from_array(v, n) for n, v in values.items() if n in used]
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["B", 3, 4, 4])
    out = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, None)
    opset = 13
    model = helper.make_model(
        helper.make_graph(nodes, "g", [data], [out], constants),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    model.ir_version = 8
    path = tmp_path / "op.onnx"
    onnx.save(model, str(path))
    images = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    ours = OnnxModule(model)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(ours, onnxruntime_output(path, images), atol=1e-6)
