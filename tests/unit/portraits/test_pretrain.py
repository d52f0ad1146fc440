"""The base model: a tiny one gets better in every part, survives a kill, loads as a stock pipeline."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from components.portraits.config import VaeArchitecture
from components.portraits.pretrain import PretrainConfig
from components.portraits.pretrain.__main__ import parse
from components.portraits.pretrain.batches import frame, to_m11, words
from components.portraits.pretrain.config import PARTS, Budget
from components.portraits.pretrain.make import make_base, open_workshop
from components.portraits.pretrain.measure import equal_error_rate, top1
from components.portraits.pretrain.people import load_people
from components.portraits.pretrain.unet import start_unet
from tests.factories import TINY

STEPS = {
    "identity": 40,
    "vae": 30,
    "clip": 80,
    "vision": 60,
    "text": 100,
    "attributes": 25,
    "unet": 50,
    "judge": 60,
}
SIZES = TINY.model_copy(
    update={
        "unet": TINY.unet.model_copy(update={"attention_levels": (False, True)}),
        "vae": VaeArchitecture(block_channels=(12, 48, 24), latent_channels=8, norm_groups=2),
    }
)
SMALL = PretrainConfig(
    architecture=SIZES,
    train_people=8,
    train_views=6,
    heldout_people=6,
    heldout_views=2,
    picture_size=64,
    save_every=1000,
    sample_steps=3,
    **{part: Budget(steps=STEPS[part], batch=12, learning_rate=3e-3, warmup=5) for part in PARTS},
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path, dict]:
    root = tmp_path_factory.mktemp("base")
    threads = torch.get_num_threads()
    try:
        figures = make_base(SMALL, root / "work", root / "out")
    finally:
        torch.set_num_threads(threads)
    return root / "work", root / "out", figures


@pytest.fixture(scope="module")
def shop(made):
    return open_workshop(SMALL, made[0], made[1])


@pytest.mark.parametrize("part", PARTS)
def test_each_part_ends_better_than_it_began(made, part):
    key = {"vae": "mse", "clip": "captions", "vision": "pooled"}.get(part, "loss")
    rows = [json.loads(row) for row in (made[0] / "losses" / f"{part}.jsonl").read_text().splitlines()]
    values = [row[key] for row in rows]
    assert len(values) == STEPS[part]
    first, last = np.mean(values[:6]), np.mean(values[-6:])
    assert last < 0.9 * first, f"{part}: {key} went from {first:.3f} to {last:.3f}"


def test_figures_are_measured_and_written_into_the_card(made):
    _, out, figures = made
    assert set(figures) == set(PARTS)
    assert figures == json.loads((out / "figures.json").read_text())
    card = (out / "MODEL_CARD.md").read_text()
    assert f"{figures['vae']['psnr']:.1f} dB" in card
    assert "not yet" not in card.split("classifier that judges it")[0].split("obeys")[0]


def test_trained_base_is_half_precision_and_draws_with_the_stock_pipeline(made):
    from diffusers import StableDiffusionPipeline

    out = made[1]
    weights = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    pipeline = StableDiffusionPipeline.from_pretrained(out, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a photo of a person", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (64, 64, 3)
    assert np.isfinite(picture).all()


def test_latents_have_unit_deviation_after_scaling(made, shop):
    from components.portraits.pretrain.unet import cached_latents

    latents, weights = cached_latents(shop)
    assert latents.shape == (48, 8, 16, 16)
    assert weights.shape == (48, 1, 16, 16)
    x, y = (shop.people.landmarks[0].mean(0) / 4).astype(int)  # drawn at 64 px; frames differ by a little
    assert weights[0, 0, y, x] > 2 * weights[0, 0, 0, 0]
    assert float(latents.astype(np.float32).std()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("name", ["identity", "judge"])
def test_exported_face_net_equals_the_trained_one(made, shop, name):
    import onnxruntime
    from safetensors.torch import load_file

    from components.portraits.pretrain.identity import new_net

    net, prefix = new_net(shop, name), "weights.net."
    saved = load_file(made[0] / "checkpoints" / f"{name}.safetensors")
    net.load_state_dict({k[len(prefix) :]: v for k, v in saved.items() if k.startswith(prefix)})
    faces = torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    session = onnxruntime.InferenceSession(str(made[1] / "face_pack" / f"{name}.onnx"))
    found = session.run(None, {"data": faces.numpy()})[0]
    assert np.allclose(found, net.eval()(faces).detach().numpy(), atol=1e-4)


def test_second_run_trains_nothing(made):
    work, out, figures = made
    before = (work / "losses" / "unet.jsonl").read_bytes()
    config = SMALL.model_copy(update={"parts": ("identity",)})
    (out / "figures.json").write_text(json.dumps(figures | {"vae": {"psnr": 0.0, "top1": 0.0}}))
    again = make_base(config, work, out)
    assert again["identity"] == figures["identity"]
    assert again["vae"] == pytest.approx(figures["vae"], rel=0.02)  # measured anew, by the files
    assert (work / "losses" / "unet.jsonl").read_bytes() == before


def test_interrupted_drawing_is_completed_to_the_same_people(made, tmp_path):
    whole = load_people(tmp_path / "whole", 3_000_000, 4, 2, 64)
    folder = tmp_path / "part"
    load_people(folder, 3_000_000, 4, 2, 64)
    facts = (folder / "facts.jsonl").read_text().splitlines(keepends=True)
    (folder / "facts.jsonl").write_text("".join(facts[:3]) + facts[3][:20])
    again = load_people(folder, 3_000_000, 4, 2, 64)
    assert again.captions == whole.captions
    assert np.array_equal(again.pictures, whole.pictures)
    with pytest.raises(ValueError, match="delete it or choose another"):
        load_people(folder, 3_000_000, 5, 2, 64)


def test_the_text_tower_learns_to_let_names_through(made):
    rows = [json.loads(row) for row in (made[0] / "losses" / "text.jsonl").read_text().splitlines()]
    values = [row["names"] for row in rows]
    assert np.mean(values[-6:]) < 0.8 * np.mean(values[:6])


def test_the_base_keeps_the_names_that_its_unet_was_trained_with(made):
    first, then = (load_file(made[0] / "checkpoints" / f"{part}.safetensors") for part in ("text", "unet"))
    began, ended = first["weights.head.names.net.net.0.weight"], then["weights.names.net.0.weight"]
    assert 0 < (began - ended).abs().mean() < 0.5 * began.abs().mean()  # the UNet went on from the tower's
    names = load_file(made[1] / "names" / "names.safetensors")
    assert torch.allclose(names["net.0.weight"].float(), ended, atol=2e-3)


@torch.no_grad()
def test_a_unet_with_more_attention_goes_on_from_one_with_less(made):
    before = UNet2DConditionModel.from_pretrained(made[1] / "unet", torch_dtype=torch.float32)
    sizes = SIZES.unet.model_copy(update={"attention_levels": (True, True)})
    more = SIZES.model_copy(update={"unet": sizes})
    config = SMALL.model_copy(update={"architecture": more, "go_on": True})
    after = start_unet(open_workshop(config, made[0], made[1]))
    assert len(after.attn_processors) > len(before.attn_processors)
    latents = torch.randn(2, SIZES.vae.latent_channels, SIZES.latent_size, SIZES.latent_size)
    states = torch.randn(2, 7, SIZES.text.width)
    given = (latents, torch.tensor([10, 900]), states)
    torch.testing.assert_close(after(*given).sample, before(*given).sample)
    less = SIZES.model_copy(update={"unet": sizes.model_copy(update={"attention_levels": (False, False)})})
    with pytest.raises(ValueError, match="weights that the architecture has no place for"):
        start_unet(open_workshop(config.model_copy(update={"architecture": less}), made[0], made[1]))


def test_words_fit_the_tokenizer(made, shop):
    from components.portraits.pretrain.clip import load_tokenizer

    tokenizer, rng = load_tokenizer(shop), np.random.default_rng(0)
    lengths = [len(tokenizer(caption).input_ids) for caption in shop.people.captions]
    assert max(lengths) <= 32
    said = {words(shop.people, 0, rng) for _ in range(50)}
    assert len(said) > 10
    pieces = [piece for caption in shop.people.captions for piece in tokenizer.tokenize(caption)]
    assert np.mean([piece.endswith("</w>") for piece in pieces]) > 0.99


def test_last_state_of_the_text_tower_tells_what_was_said(made, shop):
    """The reader gives a word more in sentences that say it, about new people, than in others."""
    from safetensors.torch import load_file

    from components.portraits.pretrain.clip import load_text_encoder, load_tokenizer, tokenize
    from components.portraits.pretrain.text import said_words

    text = load_text_encoder(shop)
    tokens = tokenize(load_tokenizer(shop), shop.heldout.captions)["input_ids"]
    said = said_words(tokens, text.config.vocab_size)
    assert said.sum(1).tolist() == [len(set(row.tolist())) for row in tokens]
    saved = load_file(made[0] / "checkpoints" / "text.safetensors")
    logits = text(tokens).pooler_output @ saved["weights.head.words.weight"].T
    some = (said.mean(0) > 0) & (said.mean(0) < 1)
    gap = [
        (logits[said[:, w] > 0, w].mean() - logits[said[:, w] == 0, w].mean()).item()
        for w in some.nonzero()[:, 0]
    ]

    assert np.mean(np.array(gap) > 0) > 0.75


def test_set_encoder_gives_the_principal_components(shop):
    from components.portraits.architecture import build_vae
    from components.portraits.pretrain.linear import make_encoder_linear, principal_components

    pictures = to_m11([frame(shop.people, index, 64, None)[0] for index in range(20)])
    vae = build_vae(SIZES)
    matrix, mean = principal_components(pictures, 4, 8)
    make_encoder_linear(vae, matrix, mean)
    with torch.no_grad():
        found = vae.encode(pictures[:3]).latent_dist.mean
    cells = pictures[:3].reshape(3, 3, 16, 4, 16, 4).permute(0, 2, 4, 3, 5, 1).reshape(3, 16, 16, 48).double()
    wanted = torch.einsum("bhwp,cp->bchw", cells - torch.from_numpy(mean), torch.from_numpy(matrix))
    assert found.shape == (3, 8, 16, 16)
    assert torch.allclose(found.double(), wanted, atol=0.02 * wanted.std().item())


def test_measures_of_perfect_and_of_blind_embeddings():
    perfect, rng = np.eye(120, dtype=np.float32), np.random.default_rng(0)
    assert top1(perfect, perfect) == 1.0
    assert top1(perfect, perfect[::-1]) < 0.05
    assert equal_error_rate(np.full(50, 0.9), np.full(500, 0.1)) == pytest.approx(0, abs=0.02)
    assert equal_error_rate(rng.normal(size=2000), rng.normal(size=2000)) == pytest.approx(0.5, abs=0.03)


def test_command_line_sets_budgets():
    config, work, out = parse(
        [
            "--out",
            "x",
            "--work",
            "w",
            "--parts",
            "unet,vae",
            "--minutes",
            "unet=7",
            "--steps",
            "vae=9",
            "--scale",
            "0.5",
        ]
    )
    assert (work, out, config.parts) == (Path("w"), Path("x"), ("vae", "unet"))
    assert config.unet.minutes == 3.5
    assert config.vae.steps == 4
    with pytest.raises(ValueError, match="PART=N"):
        parse(["--out", "x", "--minutes", "nothing=3"])
