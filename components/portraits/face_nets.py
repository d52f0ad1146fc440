"""Two small face recognition nets of different make, and their export as ArcFace-style ONNX.

Shapes: B batch, D embedding width. Input of both: (B, 3, 112, 112) RGB, (x - 127.5) / 127.5, NCHW, the face
aligned to insightface's template; output (B, D), not normalised. The first guides losses and measures; the
second, of another architecture and trained apart from it, judges it.
"""

from pathlib import Path

import torch
from torch import nn

FACE_SIZE = 112


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class ResidualBlock(nn.Module):
    """conv - BN - PReLU - conv - BN with a shortcut, as in iresnet (insightface) without its leading BN."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(inputs, outputs, 3, stride), nn.PReLU(outputs), *_conv(outputs, outputs, 3)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))
        self.activation = nn.PReLU(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return self.activation(self.body(x) + self.shortcut(x))


def identity_net(channels: tuple[int, int, int], embedding: int) -> nn.Sequential:
    """The identity net: residual blocks and a linear head over the 7 x 7 map.

    The first convolution has stride 4: faces of the portrait world are 30 to 60 pixels wide, so little is
    lost.
    """
    a, b, c = channels
    return nn.Sequential(
        *_conv(3, a, 7, 4),
        nn.PReLU(a),
        ResidualBlock(a, a, 1),
        ResidualBlock(a, b, 2),
        ResidualBlock(b, b, 1),
        ResidualBlock(b, c, 2),
        *_conv(c, 48, 1),
        nn.PReLU(48),
        nn.Flatten(),
        nn.Linear(48 * 49, embedding, bias=False),
        nn.BatchNorm1d(embedding),
    )


def judge_net(channels: tuple[int, int, int, int], embedding: int) -> nn.Sequential:
    """The second judge: plain convolutions without shortcuts, ReLU, and pooling where the first has strides.

    Depthwise blocks would be more unlike it still, and cost a CPU four times as much a step.
    """
    a, b, c, d = channels
    return nn.Sequential(
        *_conv(3, a, 5, 4),
        nn.ReLU(),
        *_conv(a, b, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_conv(b, c, 3),
        nn.ReLU(),
        *_conv(c, c, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_conv(c, d, 3),
        nn.ReLU(),
        *_conv(d, d, 3),
        nn.ReLU(),
        *_conv(d, 32, 1),
        nn.Flatten(),
        nn.Linear(32 * 49, embedding, bias=False),
        nn.BatchNorm1d(embedding),
    )


def export_onnx(net: nn.Module, path: Path, size: int = FACE_SIZE, output: str = "embedding") -> None:
    """Writes a net on square pictures as ONNX with a free batch size, input "data" and one output.

    Args:
        net: (B, 3, size, size) to (B, D).
        path: The file; its folder is made if missing.
        size: Side of the pictures.
        output: Name of the output.
    """
    import warnings

    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(2, 3, size, size)
    was_training = net.training
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, but needs no further package
        torch.onnx.export(
            net.eval(),
            (example,),
            str(path),
            input_names=["data"],
            output_names=[output],
            dynamic_axes={"data": {0: "batch"}, output: {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    net.train(was_training)
