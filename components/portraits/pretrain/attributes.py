"""Trains the attribute classifier: background, hair colour, glasses, smile, hat and beard of a 64 px picture.

It reads what a generated picture shows, so that obedience to a prompt is counted by a machine whose own
error is known. Written as `attributes/classifier.onnx` (input (B, 3, S, S) RGB in [-1, 1], output the
logits of all attributes side by side) and `attributes/labels.json` (attribute -> its classes, in the order
of the logits).
"""

import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from components.core import write_text_atomic
from components.portraits.face_nets import ResidualBlock, export_onnx
from components.portraits.pretrain.batches import frame, recolour, to_m11
from components.portraits.pretrain.fit import Task, fit
from components.portraits.pretrain.measure import AttributeReader, attribute_figures
from components.portraits.pretrain.workshop import Workshop
from components.portraits.world import BACKGROUNDS, HAIR_COLOURS

LABELS: dict[str, tuple[str, ...]] = {
    "background": tuple(BACKGROUNDS),
    "hair_colour": (*HAIR_COLOURS, "none"),
    "glasses": ("False", "True"),
    "smile": ("False", "True"),
    "hat": ("False", "True"),
    "beard": ("False", "True"),
    "gender": ("female", "male"),
}


def classifier(outputs: int) -> nn.Sequential:
    """A small residual net on 64 px pictures: (B, 3, S, S) to (B, outputs)."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 2, 2, bias=False),
        nn.BatchNorm2d(16),
        nn.PReLU(16),
        ResidualBlock(16, 32, 1),
        ResidualBlock(32, 64, 2),
        ResidualBlock(64, 64, 2),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64 * 16, outputs),
    )


def train_attributes(shop: Workshop) -> dict[str, float]:
    """Trains the classifier, writes it as ONNX and measures it on held-out people."""
    torch.manual_seed(shop.seed("weights", "attributes"))
    net = classifier(sum(len(classes) for classes in LABELS.values()))
    batch = shop.config.attributes.batch

    def loss(rng: np.random.Generator, done: float) -> dict[str, torch.Tensor]:
        picked = shop.picks(rng, batch)
        pictures = [recolour(frame(shop.people, index, shop.size, rng)[0], rng, 0.4) for index in picked]
        logits = net(soften(to_m11(pictures), rng)).split([len(c) for c in LABELS.values()], dim=1)
        targets = targets_of([shop.people.attributes[index] for index in picked])
        terms = {k: F.cross_entropy(part, targets[k]) for k, part in zip(LABELS, logits, strict=True)}
        return {"loss": torch.stack(list(terms.values())).sum()} | terms

    task = Task("attributes", nn.ModuleDict({"net": net}), loss)
    fit(
        task,
        shop.config.attributes,
        shop.work / "checkpoints",
        shop.seed("attributes"),
        shop.config.save_every,
    )
    folder = shop.out / "attributes"
    export_onnx(net, folder / "classifier.onnx", size=shop.size, output="logits")
    write_text_atomic(folder / "labels.json", json.dumps(LABELS, indent=2) + "\n")
    return attribute_figures(shop, AttributeReader(folder))


def targets_of(attributes: list[dict[str, str | bool]]) -> dict[str, torch.Tensor]:
    """Class numbers (B,) by attribute."""
    return {
        name: torch.tensor([classes.index(str(row[name])) for row in attributes])
        for name, classes in LABELS.items()
    }


def soften(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Some blur and noise, as decoded pictures have."""
    if rng.random() < 0.5:
        side = images.shape[-1]
        small = F.interpolate(
            images, scale_factor=float(rng.uniform(0.5, 1)), mode="bilinear", antialias=True
        )
        images = F.interpolate(small, size=(side, side), mode="bilinear")
    return images + torch.randn_like(images) * float(rng.uniform(0, 0.06))
