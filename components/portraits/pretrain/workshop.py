"""What every part is given: the config, the folders, the drawn people, and where pictures to look at go."""

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from components.core import derive_seed, write_text_atomic
from components.portraits.pretrain.config import PretrainConfig
from components.portraits.pretrain.people import People


@dataclass(frozen=True)
class Workshop:
    """The place where one base is made.

    Attributes:
        config: All settings.
        work: Caches, checkpoints and grids of pictures.
        out: The base folder; holds a whole base at any time.
        people: Drawn people to learn from.
        heldout: Drawn people to measure on.
    """

    config: PretrainConfig
    work: Path
    out: Path
    people: People
    heldout: People

    @property
    def size(self) -> int:
        """Side of the base's pictures."""
        return self.config.architecture.picture_size

    def seed(self, *parts: int | str) -> int:
        """A seed of its own for each use."""
        return derive_seed(self.config.seed, *parts)

    def generator(self, *parts: int | str) -> np.random.Generator:
        """A NumPy generator of its own for each use."""
        return np.random.default_rng(self.seed(*parts))

    def picks(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Indices of training pictures."""
        return rng.integers(len(self.people), size=count)

    def save_grid(self, name: str, pictures: np.ndarray, columns: int = 10) -> Path:
        """Writes (B, H, W, 3) uint8 RGB pictures as one PNG below `work/grids`, twice their size."""
        rows = [np.concatenate(list(pictures[i : i + columns]), 1) for i in range(0, len(pictures), columns)]
        widest = max(row.shape[1] for row in rows)
        sheet = np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows])
        path = self.work / "grids" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        large = cv2.resize(sheet, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), large[..., ::-1])
        return path


def save_half(model: Any, folder: Path) -> None:
    """Writes a diffusers or transformers model in float16, leaving the model itself as it is."""
    deepcopy(model).half().save_pretrained(folder)
    config = folder / "config.json"
    known = json.loads(config.read_text())
    if known.pop("_name_or_path", None) is not None:  # where it was loaded from concerns this machine alone
        write_text_atomic(config, json.dumps(known, indent=2, sort_keys=True) + "\n")
