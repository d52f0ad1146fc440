"""A base is a folder or a hub id, by configuration alone; its sizes are read from it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.model import ModelConfig, load_base
from tests.factories import TINY, tiny_base

PROJECT = Path(__file__).resolve().parents[3]
REVISION = "0" * 40
LOAD = """
import sys
from components.model import ModelConfig, PhotoVerseAdapter, load_base, load_pipeline, weight_hashes
for name in sys.argv[1:]:
    config = ModelConfig(base=name)
    base = load_base(config)
    PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)
    assert type(load_pipeline(config)).__name__ == "StableDiffusionPipeline"
    print(weight_hashes(base.unet, base.text_encoder, base.image_encoder)["float32"])
"""


def test_a_hub_id_gives_what_its_folder_gives(tmp_path):
    """From a cache of the hub, as a download leaves it; nothing is fetched."""
    folder = tiny_base(tmp_path / "folder")
    repository = tmp_path / "cache" / "models--somebody--tiny"
    shutil.copytree(folder, repository / "snapshots" / REVISION)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, "somebody/tiny", str(folder)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    of_hub, of_folder = done.stdout.split()
    assert of_hub == of_folder


@pytest.mark.parametrize(("text", "vision"), [(16, 32), (48, 16)])
def test_widths_follow_the_base(tmp_path, text, vision):
    """As 768 and 1024 do for SD 1.x with ViT-L and SD 2.x with ViT-H."""
    architecture = TINY.model_copy(
        update={
            "text": TINY.text.model_copy(update={"width": text}),
            "vision": TINY.vision.model_copy(update={"width": vision}),
        }
    )
    from components.model import PhotoVerseAdapter

    config = ModelConfig(base=str(tiny_base(tmp_path / "base", architecture)))
    base = load_base(config)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, config)
    features = torch.randn(1, adapter.m, 2, vision)
    assert adapter.text_words(features).shape == (1, adapter.m, text)
    assert adapter.visual_tokens(features).shape == (1, adapter.m, text)
    assert {kv.to_k.in_features for kv in adapter.visual_kv.values()} == {text}
