"""Two small face recognition nets of different make, and their export as ArcFace-style ONNX.

Shapes: B batch, D embedding width. Input of both: (B, 3, 112, 112) RGB, (x - 127.5) / 127.5, NCHW, the face
aligned to insightface's template; output (B, D), not normalised. The first guides losses and measures; the
second, of another architecture and trained apart from it, judges it.
"""

from pathlib import Path

import torch
from torch import nn

FACE_SIZE = 112


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
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


class MobileBlock(nn.Module):
    """1x1 expansion, depthwise 3x3, 1x1 projection, as in MobileFaceNet."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int = 2) -> None:
        super().__init__()
        wide = inputs * expansion
        self.body = nn.Sequential(
            *_conv(inputs, wide, 1),
            nn.PReLU(wide),
            *_conv(wide, wide, 3, stride, groups=wide),
            nn.PReLU(wide),
            *_conv(wide, outputs, 1),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        return x + self.body(x) if self.same else self.body(x)


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
    """The second judge: depthwise mobile blocks and a global depthwise convolution."""
    a, b, c, d = channels
    return nn.Sequential(
        *_conv(3, a, 5, 2),
        nn.PReLU(a),
        MobileBlock(a, b, 2),
        MobileBlock(b, b, 1),
        MobileBlock(b, c, 2),
        MobileBlock(c, c, 1, 3),
        MobileBlock(c, c, 1, 3),
        MobileBlock(c, d, 2, 3),
        MobileBlock(d, d, 1),
        *_conv(d, 2 * d, 1),
        nn.PReLU(2 * d),
        nn.Conv2d(2 * d, 2 * d, 7, groups=2 * d, bias=False),
        nn.BatchNorm2d(2 * d),
        nn.Flatten(),
        nn.Linear(2 * d, embedding, bias=False),
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
