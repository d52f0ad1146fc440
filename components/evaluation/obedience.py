"""Does the picture show what was asked for? An attribute reader says, where the base ships one.

It is an ONNX classifier, `attributes/classifier.onnx` of a base folder with `labels.json` beside it: checks
that are right or wrong. CLIP's opinion is in `clip_score.py`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.core import sha256_file


class AttributeReader:
    """Reads classes off pictures with a base's own classifier.

    Args:
        folder: Holds `classifier.onnx`, (B, 3, S, S) in [-1, 1] to logits, and `labels.json`.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = folder / "classifier.onnx"
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        self.labels: dict[str, list[str]] = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
        self.mark = sha256_file(file)[:16]

    @property
    def size(self) -> int | None:
        """Side of the pictures it takes; None for any."""
        side = self._input.shape[-1]
        return side if isinstance(side, int) else None

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[dict[str, str]]:
        """Returns attribute -> class for each (S, S, 3) RGB picture."""
        if not pictures:
            return []
        stacked = np.stack([_sized(picture, self.size) for picture in pictures])
        blobs = (stacked.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
        parts = [
            self._session.run(None, {self._input.name: blobs[at : at + 64]})[0]
            for at in range(0, len(blobs), 64)
        ]
        ends = np.cumsum([len(classes) for classes in self.labels.values()])[:-1]
        split = np.split(np.concatenate(parts), ends, axis=1)
        named = dict(zip(self.labels, split, strict=True))
        chosen = {name: part.argmax(1) for name, part in named.items()}
        return [
            {name: self.labels[name][int(numbers[i])] for name, numbers in chosen.items()}
            for i in range(len(pictures))
        ]

    def check(self, expects: Mapping[str, str]) -> None:
        """Refuses a wish that it cannot read.

        Raises:
            ValueError: An attribute or a class is not among its labels.
        """
        for name, value in expects.items():
            if value not in self.labels.get(name, []):
                known = self.labels.get(name, sorted(self.labels))
                raise ValueError(f"the attribute reader cannot tell {name}: {value}; it knows {known}")


def load_reader(base_folder: Path) -> AttributeReader | None:
    """Returns the base's own attribute reader, None where it ships none."""
    folder = base_folder / "attributes"
    return AttributeReader(folder) if (folder / "classifier.onnx").is_file() else None


def _sized(picture: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    if side is None or picture.shape[0] == side:
        return picture
    import cv2

    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)
