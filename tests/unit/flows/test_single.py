"""`photoverse personalize` and `photoverse export` by the real command, on this repository's base."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.core import sha256_file
from components.inference import (
    Dials,
    IdentityCard,
    Personalizer,
    read_recipe,
)
from components.model import load_pipeline
from components.portraits.world import portrait
from flows import single
from flows.cli import OK, REFUSED, main
from flows.config import resolve
from flows.dials import DIALS, number_list, share_list
from flows.environment import PROJECT
from flows.single import merged_dials
from tests.unit.flows.drawing import BASE, PROMPT, QUICK, pixels, run

PROFILE = resolve("portraits")


def in_a_terminal(command: list[str]) -> tuple[int, str, str]:
    """Runs a command whose errors go to a terminal: its code, what it printed, what the terminal showed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                shown.extend(os.read(ours, 4096))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    printed, _ = process.communicate(timeout=300)
    reader.join()
    os.close(ours)
    return process.returncode, printed, shown.decode(errors="replace")


def test_one_photo_becomes_pictures_that_three_lines_of_python_draw_too(adapter, photo, tmp_path):
    out, card = tmp_path / "out", tmp_path / "me.safetensors"
    words = ["personalize", "--photo", photo, "--prompt", PROMPT, "--out", out, "--model", adapter, *QUICK]
    words += ["--seed", 7, "--num-images", 2, "--sigma", 0.8]
    words += ["--save-card", card, "--person", "anna", "--consent", "my own photo", "--expires", "2999-12-31"]
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    before = datetime.now(UTC).date()
    code, printed, shown = in_a_terminal(command)
    assert code == OK, shown
    files = [out / "seed-7.png", out / "seed-8.png"]
    assert printed.split() == [str(file) for file in files]
    assert re.search(r"drawing: +100%.*3/3", shown)  # the progress bar
    recipe = read_recipe(files[1])
    rest = PROFILE.batch.dials.model_dump(include={"sigma_schedule", "candidates"})  # what no option says
    dials = Dials(sigma=0.8, num_inference_steps=3, guidance_scale=3, **rest)
    assert recipe["prompt"] == PROMPT
    assert recipe["seed"] == 8
    assert recipe["ai_generated"] is True
    assert recipe["adapter_sha256"] == sha256_file(adapter)
    assert Dials.model_validate_json(json.dumps(recipe["dials"])) == dials
    kept = IdentityCard.load(card)
    assert (kept.consent.person, kept.consent.purpose) == ("anna", "my own photo")
    assert before <= kept.consent.given <= datetime.now(UTC).date()  # midnight may have passed
    assert kept.expires == datetime(2999, 12, 31, tzinfo=UTC)

    me = Personalizer.load(adapter)
    pictures = me.generate([me.card(photo)] * 2, [PROMPT] * 2, [7, 8], dials)
    for file, picture in zip(files, pictures, strict=True):
        assert np.abs(pixels(file) - np.asarray(picture).astype(int)).max() <= 1
    assert np.abs(pixels(files[0]) - pixels(files[1])).max() > 20  # another seed, another picture


def test_a_card_draws_what_its_photo_draws_with_no_photo_and_no_encoder(
    adapter, photo, card, tmp_path, monkeypatch
):
    asked = ["--prompt", PROMPT, "--model", adapter, *QUICK, "--candidates", 1]
    assert run("personalize", "--photo", photo, "--out", tmp_path / "photo", *asked) == OK

    def never(*_args, **_kwargs):
        raise AssertionError("a card needs neither image encoder nor detector")

    for name in ("load_extractor", "load_detector", "load_masker"):
        monkeypatch.setattr(f"components.inference.personalize.{name}", never)
    assert run("personalize", "--card", card, "--out", tmp_path / "card", *asked) == OK
    of_photo, of_card = pixels(tmp_path / "photo" / "seed-0.png"), pixels(tmp_path / "card" / "seed-0.png")
    assert np.abs(of_photo - of_card).max() <= 1


def test_without_a_champion_the_adapter_of_the_portrait_base_draws(
    adapter, card, tmp_path, monkeypatch, capsys
):
    words = ("personalize", "--card", card, "--prompt", PROMPT, *QUICK)
    monkeypatch.setattr(single, "SHIPPED_ADAPTER", adapter)
    assert run(*words, "--out", tmp_path / "a", "--root", tmp_path / "empty") == OK
    assert "no champion yet: the adapter that comes with the portrait base draws" in capsys.readouterr().err
    assert run(*words, "--out", tmp_path / "b", "--model", adapter) == OK
    assert np.array_equal(pixels(tmp_path / "a" / "seed-0.png"), pixels(tmp_path / "b" / "seed-0.png"))
    capsys.readouterr()
    named = refused(capsys, *words, "--root", tmp_path / "empty", "--model", "models:/photoverse@champion")
    assert "no version or alias 'champion'" in named
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text("model: {base: some/other-base}")
    assert "no version or alias" in refused(
        capsys, *words, "--profile", elsewhere, "--root", tmp_path / "empty"
    )


def test_a_champion_that_cannot_be_read_is_told_and_not_replaced(tmp_path, monkeypatch):
    def unreadable(*_args):
        raise ValueError("could not be read")

    monkeypatch.setattr("components.registry.resolve", unreadable, raising=False)
    config = single.Subject(root=str(tmp_path / "empty")).config()
    with pytest.raises(ValueError, match="could not be read"):
        single.load_personalizer(config, None)


def test_two_cards_are_two_persons_of_one_picture(adapter, card, tmp_path):
    other = replace(IdentityCard.load(card), words=torch.randn_like(IdentityCard.load(card).words))
    two = other.save(tmp_path / "two.safetensors")
    common = ["--prompt", "S1* and S2*", "--model", adapter, *QUICK, "--out"]
    assert run("personalize", "--card", card, two, *common, tmp_path / "a") == OK
    assert run("personalize", "--card", two, card, *common, tmp_path / "b") == OK
    assert np.abs(pixels(tmp_path / "a" / "seed-0.png") - pixels(tmp_path / "b" / "seed-0.png")).max() > 1


def test_a_strength_starts_from_the_photo(adapter, photo, card, tmp_path):
    common = ["--prompt", PROMPT, "--model", adapter, "--num-inference-steps", "20", "--photo", photo]
    near, far = tmp_path / "near", tmp_path / "far"
    assert run("personalize", *common, "--strength", "0.05", "--out", near, "--card", card) == OK
    assert run("personalize", *common, "--strength", "0.9", "--out", far) == OK
    tool = Personalizer.load(adapter, rules=PROFILE.batch.photo_rules)
    start = np.asarray(tool.start_image(photo)).astype(int)
    distances = [np.abs(pixels(folder / "seed-0.png") - start).mean() for folder in (near, far)]
    assert distances[0] < distances[1] / 2
    assert read_recipe(near / "seed-0.png")["dials"]["strength"] == 0.05


def spelt(value: object) -> str:
    """A dial's value as it is written at the command line."""
    if not isinstance(value, tuple):
        return str(value)
    return ",".join(":".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in value)


def test_every_dial_has_an_option_and_reaches_the_picture(adapter, card, tmp_path):
    assert {name for name, *_ in DIALS} == set(Dials.model_fields)
    levels = len(load_pipeline(BASE).unet.config.block_out_channels)
    asked = {
        "gamma": 1.1,
        "sigma": 0.9,
        "alpha": 0.8,
        "m_schedule": ((0, 1), (0.5, 2)),
        "guidance_scale": 2.5,
        "num_inference_steps": 2,
        "candidates": 2,
        "gamma_schedule": ((0, 0.5), (0.5, 1)),
        "sigma_schedule": ((0, 0), (0.2, 1)),
        "alpha_schedule": ((0, 1),),
        "gamma_levels": (1,) * levels,
        "sigma_levels": (0.5,) * levels,
        "alpha_levels": (0.7,) * levels,
    }
    words = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", spelt(value))]
    common = ["--card", card, "--prompt", "S*", "--model", adapter]
    assert run("personalize", *common, *words, "--out", tmp_path) == OK
    found = read_recipe(tmp_path / "seed-0.png")["dials"]
    assert Dials.model_validate_json(json.dumps(found)) == Dials(**asked)
    by_level = ["--m-levels", ",".join(["1"] * levels), *QUICK]
    assert run("personalize", *common, *by_level, "--out", tmp_path / "levels") == OK
    assert run("personalize", *common, "--m", 1, *QUICK, "--out", tmp_path / "one") == OK
    one, other = pixels(tmp_path / "levels" / "seed-0.png"), pixels(tmp_path / "one" / "seed-0.png")
    assert np.abs(one - other).max() <= 1


def test_lists_are_read_and_what_is_none_is_refused(capsys):
    assert share_list("0:0,0.2:1") == ((0, 0), (0.2, 1))
    assert number_list("1,0.5,0") == (1, 0.5, 0)
    for option, text in (("--sigma-schedule", "0.2"), ("--sigma-schedule", "a:b"), ("--gamma-levels", "1;2")):
        with pytest.raises(SystemExit) as caught:
            run("personalize", "--photo", "a.png", "--prompt", "S*", option, text)
        assert caught.value.code == REFUSED
        assert repr(text) in capsys.readouterr().err


def test_a_dial_of_m_replaces_the_profiles_other_way_of_saying_it():
    profile = Dials(m=1, sigma=0.5).model_dump()
    assert Dials.parse(merged_dials(profile, {"m_levels": (2, 1)}), source="a test").m is None
    assert Dials.parse(merged_dials(profile, {"gamma": 2}), source="a test") == Dials(m=1, sigma=0.5, gamma=2)


def refused(capsys, *words: object) -> str:
    """What a refused command says: no stack trace, one error."""
    capsys.readouterr()
    assert run(*words) == REFUSED
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("error: ") == 1
    return said[said.index("error: ") :]


def test_what_cannot_be_is_refused_before_anything_is_loaded(photo, card, capsys, monkeypatch):
    monkeypatch.setattr("flows.single.load_personalizer", lambda *_a, **_k: pytest.fail("too late"))
    for words, message in [
        (["--photo", "nowhere.jpg"], "no photo at"),
        (["--card", "nowhere.safetensors"], "no identity card at"),
        ([], "who is meant? give --photo"),
        (["--photo", photo, "--card", card], "both say who is meant"),
        (["--card", card, "--strength", "0.5"], "--strength starts from a photo"),
        (["--card", card, "--save-card", "x.safetensors"], "keep the card of a photo"),
        (["--photo", photo, "--sigma", "9"], "sigma: Input should be less than or equal to 4"),
        (["--photo", photo, "--sigma-schedule", "0.2:1"], "must start at share 0"),
        (["--photo", photo, "--m", "1", "--m-levels", "1"], "say different things of m"),
        (["--photo", photo, "--num-images", "0"], "--num-images is 1 or more"),
        (["--photo", photo, "--expires", "soon"], "expected a date such as 2031-12-31"),
        (["--photo", photo, "--profile", "none"], "profile 'none' is not known"),
    ]:
        assert message in refused(capsys, "personalize", "--prompt", "S*", *words)
    assert "of one person" in refused(capsys, "export", "--card", card, card)


def test_cards_photos_and_models_that_do_not_fit_are_refused_with_the_reason(
    adapter, photo, card, capsys, tmp_path
):
    mine = IdentityCard.load(card)
    old = replace(mine, expires=datetime(2020, 1, 1, tzinfo=UTC)).save(tmp_path / "old.safetensors")
    other = replace(mine, adapter_hash="c" * 64).save(tmp_path / "other.safetensors")
    two = tmp_path / "two.png"
    Image.fromarray(np.concatenate([portrait(i, 0).image_uint8 for i in (1, 2)], axis=1)).save(two)
    nobody = tmp_path / "nobody.png"
    Image.new("RGB", (96, 96), "grey").save(nobody)
    strict = tmp_path / "strict.yaml"
    profile = (PROJECT / "infra" / "profiles" / "portraits.yaml").read_text()
    strict.write_text(profile.replace("  photo_rules:\n", "  photo_rules:\n    several_faces: reject\n"))
    assert "several_faces" in strict.read_text()
    for words, message in [
        (["--card", old], "expired on 2020-01-01"),
        (["--card", other], "made for the adapter"),
        (["--photo", nobody], "no face found"),
        (["--photo", two, "--profile", strict], "several faces in the photo (2)"),
    ]:
        said = refused(capsys, "personalize", "--prompt", "S*", "--model", adapter, *words)
        assert message in said
        assert message in refused(capsys, "export", "--out", tmp_path / "x", "--model", adapter, *words)
    assert not (tmp_path / "x").exists()
    too_long = ["--prompt", "S* " + "a " * 80, "--model", adapter, "--card", card]
    assert "token(s) too long" in refused(capsys, "personalize", *too_long)
    assert "no adapter at nowhere" in refused(
        capsys, "personalize", "--prompt", "S*", "--card", card, "--model", "nowhere"
    )


def test_a_jpeg_says_of_itself_what_a_png_does(adapter, card, tmp_path, capsys):
    words = ["personalize", "--card", card, "--prompt", PROMPT, "--out", tmp_path, "--model", adapter, *QUICK]
    assert main([*map(str, words), "--kind", "jpg", "--seed", "5"]) == OK
    (file,) = capsys.readouterr().out.split()
    assert Image.open(file).format == "JPEG"
    assert Path(file).name == "seed-5.jpg"
    assert main(["inspect", file]) == OK
    said = dict(re.findall(r"^(.{20})(.*)$", capsys.readouterr().out, re.M))
    said = {name.strip(): value for name, value in said.items()}
    assert said["drawn by PhotoVerse"] == said["AI-generated"] == "yes"
    assert said["adapter_sha256"] == sha256_file(adapter)
    assert (said["seed"], said["prompt"]) == ("5", PROMPT)
    assert "num_inference_steps 3" in said["dials"]
    assert said["digital source type"] == "trainedAlgorithmicMedia"
    assert re.match(r"found \(score [\d.]+, from", said["mark in the pixels"])
    assert said["content credentials"].startswith("unchanged since it was signed")
    assert said["signer"] == "PhotoVerse on this machine"
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    assert main(["inspect", str(tmp_path / "other.png")]) == OK
    assert "drawn by PhotoVerse nothing in it says so" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "none.png")]) == REFUSED
