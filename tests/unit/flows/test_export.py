"""What `photoverse export` writes draws in a plain pipeline; the examples of the READMEs do what they say."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from components.inference import (
    BatchConfig,
    embed_watermark,
    inspect_picture,
)
from components.inference.requests import read_requests
from components.model import load_pipeline
from flows.cli import OK
from tests.readme import examples
from tests.unit.flows.drawing import BASE, PROMPT, QUICK, pixels, run


@pytest.mark.filterwarnings("ignore")  # stock loaders are talkative
@pytest.mark.parametrize("m", [None, 1])
def test_what_is_exported_draws_in_a_plain_pipeline_what_personalize_draws(
    adapter, card, tmp_path, capsys, m
):
    words = [] if m is None else ["--m", m]
    folder = tmp_path / "export"
    assert run("export", "--card", card, "--model", adapter, "--out", folder, *words) == OK
    names = ["lora", "words", "ip_adapter", "image_embeds"]
    assert capsys.readouterr().out.split() == [str(folder / f"{name}.safetensors") for name in names]
    common = ["--card", card, "--model", adapter, "--prompt", PROMPT, "--out", tmp_path, *QUICK, *words]
    throughout = ["--sigma", "0.7", "--sigma-schedule", "0:1"]  # a plain pipeline knows no schedules
    assert run("personalize", *common, "--seed", "5", "--candidates", "1", *throughout) == OK

    pipe = load_pipeline(BASE)
    quick = {"num_inference_steps": 3, "guidance_scale": 3}
    bare = pipe("a photo of a person, smiling", **quick, generator=generator())
    pipe.load_lora_weights(folder, weight_name="lora.safetensors", adapter_name="photoverse")
    pipe.load_textual_inversion(folder / "words.safetensors")
    pipe.load_ip_adapter(folder, "", "ip_adapter.safetensors", image_encoder_folder=None)
    pipe.set_ip_adapter_scale(0.7)
    theirs = pipe(
        "a photo of <person>, smiling",
        ip_adapter_image_embeds=[load_file(folder / "image_embeds.safetensors")["embeds"]],
        **quick,
        generator=generator(),
    ).images[0]
    ours = pixels(tmp_path / "seed-5.png")
    # what the project draws is marked; a rounding before the mark may be two grey levels after it
    assert np.abs(np.asarray(embed_watermark(theirs)).astype(int) - ours).max() <= 2
    assert np.abs(np.asarray(bare.images[0]).astype(int) - ours).max() > 10


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize(
    ("page", "makes"), [("README.md", "smiling.png"), ("components/inference/README.md", "astronaut.png")]
)
def test_the_examples_in_python_do_what_they_say(page, makes, adapter, photo, tmp_path, monkeypatch):
    code = examples(page, "python")[0]
    for folder in (tmp_path, tmp_path / "runs/demo/train/a"):
        folder.mkdir(parents=True, exist_ok=True)
        for kind in (".safetensors", ".json"):
            shutil.copy(adapter.with_suffix(kind), folder)
    Image.open(photo).save(tmp_path / "me.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # here and not in a process of its own: what it imports is there already
    found = inspect_picture(tmp_path / makes)
    assert (found.recipe["seed"], found.credentials["state"]) == (7, "valid")


def test_the_request_of_the_readme_is_one(tmp_path):
    (line,) = examples("README.md", "json")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "ada.png").write_bytes(b"a photo")
    (tmp_path / "requests.jsonl").write_text(line)
    (read,) = read_requests(tmp_path / "requests.jsonl", BatchConfig(), {})
    assert (read.error, read.id, read.person) == (None, "a1", "ada")
