"""Trains the identity net and the second judge: ArcFace on aligned faces of drawn people.

The two differ in architecture, in the seed of weights and batches, and neither sees the other. The identity
net is also a loss of the autoencoder; the judge guides nothing and only measures.
Source: ArcFace, Deng et al. 2019, Eq. 3.
"""

from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from components.portraits.face_nets import export_onnx, identity_net, judge_net
from components.portraits.pretrain.batches import rough_face, to_m11
from components.portraits.pretrain.fit import Task, fit
from components.portraits.pretrain.measure import IdentityFigures, identity_figures
from components.portraits.pretrain.workshop import Workshop

SCALE, MARGIN = 24.0, 0.4


class ArcFace(nn.Module):
    """Classes on a sphere, with an angular margin for the right one.

    Args:
        width: Width of the embeddings. classes: number of people.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(classes, width) * 0.05)

    def forward(self, embeddings_BD: torch.Tensor, people_B: torch.Tensor, margin: float) -> torch.Tensor:
        """Cross-entropy, a scalar, in float32 whatever the net computes in; `margin` in radians."""
        with torch.autocast("cpu", enabled=False):
            cosines = F.normalize(embeddings_BD.float()) @ F.normalize(self.centres).T
            right = F.one_hot(people_B, len(self.centres)).bool()
            angles = torch.acos(cosines.clamp(-1 + 1e-6, 1 - 1e-6))
            return F.cross_entropy(SCALE * torch.where(right, torch.cos(angles + margin), cosines), people_B)


def train_identity(shop: Workshop, name: Literal["identity", "judge"]) -> IdentityFigures:
    """Trains one of the two nets, writes `face_pack/<name>.onnx` and measures it on held-out people."""
    net = new_net(shop, name)
    arcface = ArcFace(shop.config.architecture.face.embedding, shop.people.count)
    batch = shop.config.budget(name).batch

    def loss(rng: np.random.Generator, done: float) -> dict[str, torch.Tensor]:
        picked = shop.picks(rng, batch)
        faces = to_m11([rough_face(shop.people, index, rng) for index in picked])
        people = torch.from_numpy(picked // shop.people.views)
        embeddings = net(faces)
        return {"loss": arcface(embeddings, people, MARGIN * min(1.0, done / 0.3))}

    task = Task(name, nn.ModuleDict({"net": net, "arcface": arcface}), loss)
    fit(task, shop.config.budget(name), shop.work / "checkpoints", shop.seed(name), shop.config.save_every)
    export_onnx(net, shop.out / "face_pack" / f"{name}.onnx")
    return identity_figures(shop, shop.out / "face_pack" / f"{name}.onnx")


def new_net(shop: Workshop, name: Literal["identity", "judge"]) -> nn.Sequential:
    """The untrained net, seeded by its name."""
    sizes = shop.config.architecture.face
    torch.manual_seed(shop.seed("weights", name))
    if name == "identity":
        return identity_net(sizes.identity_channels, sizes.embedding)
    return judge_net(sizes.judge_channels, sizes.embedding)


def load_identity(shop: Workshop) -> nn.Module:
    """The identity net as trained so far in this workshop, frozen; random weights if it is not trained."""
    from safetensors.torch import load_file

    net = new_net(shop, "identity")
    path = shop.work / "checkpoints" / "identity.safetensors"
    if path.is_file():
        prefix = "weights.net."
        net.load_state_dict({k[len(prefix) :]: v for k, v in load_file(path).items() if k.startswith(prefix)})
    return net.eval().requires_grad_(False)
