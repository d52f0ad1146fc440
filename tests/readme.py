"""The examples of the READMEs, run as a reader would: in a folder with a photo, against a running server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from flows.environment import PROJECT


def examples(page: str, language: str) -> list[str]:
    """Returns the fenced blocks of a page in a language ("sh", "python"), in their order."""
    text = (PROJECT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def run_example(
    code: str, language: str, folder: Path, photo_uint8: np.ndarray, address: tuple[str, str]
) -> str:
    """Runs an example in a folder that holds `me.jpg`, and returns what it printed.

    Args:
        code: The block.
        language: "sh" or "python".
        folder: Where it runs; examples write there.
        photo_uint8: (H, W, 3) RGB, the photo of me.jpg.
        address: What the page calls the server, and what it is called here.
    """
    Image.fromarray(photo_uint8).save(folder / "me.jpg", quality=95)
    assert address[0] in code
    words = {"sh": ["bash", "-e", "-c"], "python": [sys.executable, "-c"]}[language]
    done = subprocess.run(
        [*words, code.replace(*address)], cwd=folder, env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
