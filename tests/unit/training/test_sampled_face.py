"""Pictures of the sampled identity loss: drawn as a stock pipeline does, with gradients to each step."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionPipeline

from components.inference import Attachment, Dials, attach
from components.model import (
    Condition,
    ModelConfig,
    PhotoVerseAdapter,
    PhotoVerseModel,
    load_adapter,
    load_base,
)
from components.training.batch import FromNoise
from components.training.config import SampledFaceConfig, TrainConfig
from components.training.face_identity import FaceIdentity
from components.training.prompts import Prompts
from components.training.sampled_face import HeldGradient, SampledFace
from components.training.tracking import read_history
from tests.factories import untrained_adapter
from tests.unit.training.made_runs import run_alone
from tests.unit.training.test_face_identity import Flat, enlarging
from tests.unit.training.test_loop import losses

PROMPT = "a photo of S* , smiling"
TIMESTEPS = (999, 749, 499, 249)
SIGMA = (0.0, 0.75, 0.75, 0.75)
SAMPLED = {"lambda_sampled": 0.5, "sigma": [0, 1], "guidance_scale": 2.0, "every_n_samples": 4}


def from_noise(prompts, features, channels, side, prompt=PROMPT):
    count = len(features)
    ids, positions = prompts.rows([prompt] * count)
    empty_ids, empty_positions = prompts.rows([""] * count)
    return FromNoise(
        noise=torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1)),
        input_ids=ids,
        word_positions=positions,
        empty_ids=empty_ids,
        empty_positions=empty_positions,
        features=features,
        identity=torch.nn.functional.normalize(torch.randn(count, 32), dim=-1),
        landmarks_xy=torch.rand(count, 5, 2) * 30,
        share=torch.tensor(1 / count),
    )


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_pictures_are_those_of_the_stock_pipeline(base, tmp_path, guidance_scale):
    model = ModelConfig(base=str(base))
    file = untrained_adapter(tmp_path / "adapter.safetensors", model, lora_std=0.3)
    loaded = load_base(model)
    features = torch.randn(2, *loaded.extractor.shape, generator=torch.Generator().manual_seed(2))

    pipe = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    person: Attachment = attach(pipe, file)
    dials = Dials(
        guidance_scale=guidance_scale, num_inference_steps=4, sigma=0.75, sigma_schedule=((0, 0), (0.16, 1))
    )
    inputs = person.inputs([PROMPT] * 2, person.cards(features), dials)
    adapter = load_adapter(file, loaded.unet, loaded.text_encoder)
    config = SampledFaceConfig(lambda_sampled=1, sigma=SIGMA, guidance_scale=guidance_scale)
    sampled = SampledFace(config, loaded.noise_scheduler, FaceIdentity(loaded.vae, None), None, 1.0)
    side = loaded.unet.config.sample_size
    prompts = Prompts(loaded.tokenizer, "a photo of S*", adapter.m)
    batch = from_noise(prompts, features, loaded.unet.config.in_channels, side)
    expected = pipe(**inputs, latents=batch.noise, output_type="latent").images
    found = sampled.draw(PhotoVerseModel(loaded.unet, loaded.text_encoder, adapter), batch)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(found, batch.noise, atol=0.1)


def scheduler():
    return DDPMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )


def made(detect, sigma=SIGMA, guidance_scale=3.0, **settings):
    """A loss over a model whose prediction has one weight a timestep and sigma."""
    config = SampledFaceConfig(lambda_sampled=1, sigma=sigma, guidance_scale=guidance_scale, **settings)
    face = FaceIdentity(enlarging(), Flat())
    loss = SampledFace(config, scheduler(), face, detect, 0.5)
    weights = {timestep: torch.tensor(0.9, requires_grad=True) for timestep in TIMESTEPS}
    calls = []

    def denoise(noisy, timesteps, condition, gamma=1.0, sigma=1.0, alpha=1.0):
        calls.append((int(timesteps[0]), condition.visual_tokens is not None, torch.is_grad_enabled()))
        assert alpha == 0.5
        return weights[int(timesteps[0])] * noisy.roll(1, -1) * (1 + sigma)

    def condition(ids, positions, features):
        return Condition(ids, features, features)

    return loss, SimpleNamespace(condition=condition, denoise=denoise), weights, calls


def made_batch(count=2):
    prompts = SimpleNamespace(rows=lambda texts: (torch.zeros(len(texts), 7), torch.zeros(len(texts), 7)))
    batch = from_noise(prompts, torch.zeros(count, 1, 2, 4), 4, 16)
    return FromNoise(**(vars(batch) | {"identity": torch.randn(count, 3 * 112 * 112)}))


def nobody(picture):
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    return []


def test_gradients_reach_every_step_and_not_the_unconditional_pass():
    loss, model, weights, calls = made(nobody)
    found = loss(model, made_batch())
    assert found.shape == (2,)
    found.sum().backward()
    assert all(weight.grad is not None and weight.grad.abs() > 0 for weight in weights.values())
    assert [call for call in calls if call[2]] == [
        (t, s > 0, True) for t, s in zip(TIMESTEPS, SIGMA, strict=True)
    ]
    assert [call for call in calls if not call[2]] == [(t, False, False) for t in TIMESTEPS]


def test_gradients_are_held_at_the_norm_that_they_begin_with():
    hold = HeldGradient()
    finished = torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1, 1) * torch.ones(3, 1, 2, 2) / 2  # norms 1, 2, 5
    assert torch.equal(hold(finished), finished)
    before = torch.tensor([0.5, 40.0, 0.0]).view(3, 1, 1, 1) * torch.randn(3, 1, 2, 2).sign() / 2
    torch.testing.assert_close(hold(before).flatten(1).norm(dim=1), torch.tensor([0.5, 2.0, 0.0]))
    torch.testing.assert_close(hold(before)[1], before[1] / 20)  # shorter, and no other way


def test_held_gradients_do_not_grow_through_the_steps():
    def norms(hold_gradients):
        torch.manual_seed(0)
        loss, model, weights, _ = made(nobody, guidance_scale=9.0, hold_gradients=hold_gradients)
        loss(model, made_batch(1)).sum().backward()
        return [weights[t].grad.abs().item() for t in TIMESTEPS]

    held, free = norms(True), norms(False)
    assert held[-1] == pytest.approx(free[-1])
    assert max(free) > 5 * free[-1]
    assert max(held) < max(free) / 5


def test_without_guidance_there_is_no_second_pass():
    loss, model, _, calls = made(nobody, guidance_scale=1.0)
    loss(model, made_batch())
    assert len(calls) == 4


def test_the_face_is_taken_where_the_detector_sees_it():
    batch = made_batch()
    places = [batch.landmarks_xy[0].numpy() + 9, None]
    seen = iter(places)

    def detect(picture):
        place = next(seen)
        return [] if place is None else [SimpleNamespace(landmarks_xy=place)]

    found = made(detect)[0](made(nobody)[1], batch).detach()
    otherwise = made(nobody)[0](made(nobody)[1], batch).detach()
    moved = FromNoise(
        **(vars(batch) | {"landmarks_xy": batch.landmarks_xy + torch.tensor([[[9.0]], [[0.0]]])})
    )
    torch.testing.assert_close(found, made(nobody)[0](made(nobody)[1], moved).detach())
    assert found[0] != otherwise[0]
    assert found[1] == otherwise[1]


def test_identities_of_another_network_are_refused():
    batch = FromNoise(**(vars(made_batch()) | {"identity": torch.randn(2, 5)}))
    loss, model, _, _ = made(nobody)
    with pytest.raises(ValueError, match="identities are 5 wide.*prepared with another network"):
        loss(model, batch)


def test_steps_along_its_gradient_lower_it(base):
    from components.face import load_arcface

    loaded = load_base(ModelConfig(base=str(base)))
    adapter = PhotoVerseAdapter.create(
        loaded.unet, loaded.text_encoder, loaded.image_encoder, ModelConfig(base=str(base))
    )
    model = PhotoVerseModel(loaded.unet, loaded.text_encoder, adapter)
    face = FaceIdentity(loaded.vae, load_arcface(base / "face_pack" / "identity.onnx"))
    config = SampledFaceConfig(lambda_sampled=1, sigma=(0, 1, 1), guidance_scale=2)
    loss = SampledFace(config, loaded.noise_scheduler, face, nobody, 1.0)
    features = torch.randn(2, *loaded.extractor.shape, generator=torch.Generator().manual_seed(2))
    side = loaded.unet.config.sample_size
    prompts = Prompts(loaded.tokenizer, "a photo of S*", adapter.m)
    batch = from_noise(prompts, features, loaded.unet.config.in_channels, side)
    optimizer = torch.optim.Adam(model.trainable_parameters(), lr=1e-3)
    history = []
    for _ in range(12):
        optimizer.zero_grad()
        found = loss(model, batch).mean()
        found.backward()
        optimizer.step()
        history.append(found.item())
    assert history[-1] < history[0] - 0.01


def test_a_resumed_run_with_it_is_bitwise_the_undisturbed_one(make_job):
    settings = {"steps": 4, "checkpoint_every": 2, "sampled_face": SAMPLED}
    job, again = make_job("whole", **settings), make_job("again", **settings)
    _, kept = run_alone(job)
    run_alone(again, resume_from=kept[2])
    assert losses(again.folder) == losses(job.folder)[2:]
    rows = [row for row in read_history(job.folder) if "loss" in row]
    for row in rows:
        terms = row["diffusion"] + 0.01 * row["face"] + 0.01 * row["text_regularizer"]
        terms += 0.001 * row["visual_regularizer"] + 0.5 * row["sampled_face"]
        assert row["loss"] == pytest.approx(terms, rel=1e-4)
        assert row["sampled_face"] > 0


def test_accumulated_it_is_that_of_the_whole_batch(make_job):
    settings = {"steps": 1, "checkpoint_every": 1, "sampled_face": SAMPLED | {"every_n_samples": 2}}
    whole, parts = make_job("whole", **settings), make_job("parts", micro_batch_size=2, **settings)
    for job in (whole, parts):
        run_alone(job)
    found, expected = (read_history(job.folder)[0]["sampled_face"] for job in (parts, whole))
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_term_alone_loads_the_identity_network(make_job):
    job = make_job(face_loss={"lambda_face": 0}, sampled_face=SAMPLED)
    assert job.config.looks_at_faces
    assert not make_job("off", face_loss={"lambda_face": 0}).config.looks_at_faces


def test_stage_3_is_refused_because_not_every_worker_draws():
    with pytest.raises(ValueError, match="sampled_face draws on some workers only: use zero_stage 0, 1 or 2"):
        TrainConfig.parse({"zero_stage": 3, "sampled_face": {"lambda_sampled": 1}}, source="a test")
