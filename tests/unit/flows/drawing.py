"""What the tests of `photoverse personalize` and `photoverse export` share."""

from pathlib import Path

import numpy as np
from PIL import Image

from components.model import ModelConfig
from flows.cli import main
from flows.environment import PROJECT

BASE = ModelConfig(base=str(PROJECT / "components" / "portraits" / "base"))
PROMPT = "a photo of S*, smiling"
QUICK = ["--num-inference-steps", "3", "--guidance-scale", "3"]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def run(*words: object) -> int:
    return main([str(word) for word in words])
