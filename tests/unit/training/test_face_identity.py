"""What the identity loss decodes: the whole picture, a window around the face, or through a tiny decoder."""

from types import SimpleNamespace

import pytest
import torch

from components.training.config import FaceLossConfig
from components.training.face_identity import FaceIdentity, face_windows, load_tiny_decoder
from tests.unit.training.made_runs import run_alone
from tests.unit.training.test_loop import losses

LANDMARKS = torch.tensor([[26.0, 26], [38, 26], [32, 32], [27, 38], [37, 38]])


class Enlarging(torch.nn.Module):
    """A decoder without a view beyond one latent: each becomes a block of four by four pixels."""

    dtype = torch.float32

    def decode(self, latents):
        return SimpleNamespace(sample=latents.repeat_interleave(4, -1).repeat_interleave(4, -2)[:, :3])


class Flat(torch.nn.Module):
    def embed(self, faces):
        return faces.flatten(1)


def enlarging():
    decoder = Enlarging()
    decoder.config = type("Config", (dict,), {"scaling_factor": 2.0})(block_out_channels=(8, 8, 8))
    return decoder


def test_a_window_shows_the_same_face_and_costs_its_area():
    latents = torch.randn(2, 4, 16, 16).requires_grad_()
    landmarks = torch.stack([LANDMARKS, LANDMARKS + 6])
    whole = FaceIdentity(enlarging(), Flat(), FaceLossConfig())(latents, landmarks)
    window = FaceIdentity(enlarging(), Flat(), FaceLossConfig(decoded="face", face_window=0.75))
    part = window(latents, landmarks)
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-5)  # this decoder looks no further
    part.sum().backward()
    assert latents.grad is not None
    cut, _ = face_windows(latents, landmarks, 0.75, scale=4)
    assert cut.shape == (2, 4, 12, 12)


def test_a_window_stays_inside_the_picture():
    latents = torch.arange(64.0).reshape(1, 1, 8, 8)
    at_the_corner = torch.zeros(1, 5, 2) + torch.rand(1, 5, 2)
    window, landmarks = face_windows(latents, at_the_corner, 0.5, 8)
    assert torch.equal(window, latents[:, :, :4, :4])
    assert torch.equal(landmarks, at_the_corner)
    window, landmarks = face_windows(latents, at_the_corner + 63, 0.5, 8)
    assert torch.equal(window, latents[:, :, 4:, 4:])
    torch.testing.assert_close(landmarks, at_the_corner + 31)


@pytest.fixture(scope="module")
def tiny_decoder(tmp_path_factory):
    from diffusers import AutoencoderTiny

    folder = tmp_path_factory.mktemp("tiny") / "decoder"
    torch.manual_seed(0)
    tiny = AutoencoderTiny(
        latent_channels=8, encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1),
    )  # fmt: skip
    tiny.save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_tiny_decoder_serves_the_loss(make_job, finished, tiny_decoder):
    face = {"fraction": 0.25, "max_timestep": 0.5, "tiny_decoder": str(tiny_decoder)}
    job = make_job(steps=2, face_loss=face, validation={"timesteps": 1, "sample_people": 0})
    worker, _ = run_alone(job)
    assert type(worker.objective.face.decoder).__name__ == "AutoencoderTiny"
    assert not any(p.requires_grad for p in worker.objective.face.decoder.parameters())
    first, plain = losses(job.folder)[0], losses(finished[0].folder)[0]
    assert first["diffusion"] == plain["diffusion"]  # the term alone is another
    assert first["face"] != plain["face"]
    assert first["face"] > 0


def test_a_tiny_decoder_of_another_base_is_refused(finished, tiny_decoder, tmp_path):
    vae = finished[1].watch._vae
    other = SimpleNamespace(
        config=type("Config", (dict,), {"latent_channels": 4})(block_out_channels=(8,) * 4)
    )
    with pytest.raises(ValueError, match="has 8 latent channels and 3 levels, the base's VAE 4 and 4"):
        load_tiny_decoder(str(tiny_decoder), other, torch.float32)
    with pytest.raises(ValueError, match=r"no AutoencoderTiny at train\.face_loss\.tiny_decoder"):
        load_tiny_decoder(str(tmp_path / "nothing"), vae, torch.float32)
