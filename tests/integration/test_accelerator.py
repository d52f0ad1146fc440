"""The chain on an accelerator that is none: no CPU-only assumption, no hidden float64, no needless wait."""

import numpy as np
import pytest
import torch

from components.core import RuntimeConfig
from components.inference import Dials, Personalizer
from components.model import (
    ModelConfig,
    PhotoVerseAdapter,
    PhotoVerseModel,
    load_base,
    load_extractor,
    load_vae,
    save_adapter,
)
from tests.factories import tiny_base
from tests.fake_accelerator import FakeAccelerator
from tests.unit.test_devices import DOUBLES

META, HALF = torch.device("meta"), torch.bfloat16


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelConfig:
    return ModelConfig(base=str(tiny_base(tmp_path_factory.mktemp("base") / "tiny")))


@pytest.fixture
def accelerator():
    return FakeAccelerator()


def nothing_wrong(accelerator: FakeAccelerator) -> None:
    assert accelerator.calls > 100
    assert dict(accelerator.mixed) == {}
    assert set(accelerator.doubles) <= {"", *DOUBLES}


def test_the_accelerator_finds_what_a_cpu_forgives(accelerator):
    with accelerator:
        weight = torch.ones(2, 2, device="meta")
        torch.mm(weight.double(), weight.double())
        float(weight.sum())
        weight.cpu()
        try:
            weight + torch.ones(2, 2)
        except RuntimeError:
            pass
    assert set(accelerator.mixed) == {"aten.add.Tensor"}
    assert accelerator.doubles[""] == 3  # two casts and a product
    assert sum(accelerator.waits.values()) == 2


def test_preparation_encodes(model, accelerator):
    from components.prepare.stages import EncodeStage

    stage = object.__new__(EncodeStage)  # its files and settings are not looked at here
    stage.device, stage.dtype = META, HALF
    stage.extractor, stage.vae = load_extractor(model, META, HALF), load_vae(model, META, HALF)
    side = stage.vae.config.sample_size
    with accelerator:
        features = stage.extractor(stage.extractor.preprocess(np.zeros((2, 64, 64, 3), np.uint8)))
        latents = stage.posterior(np.zeros((2, side, side, 3), np.uint8))
    assert features.device.type == "meta"
    assert features.shape[1:] == stage.extractor.shape
    assert latents.dtype == np.float16
    nothing_wrong(accelerator)


class PlainEngine:
    """What `train_step` asks of DeepSpeed, without it."""

    def __init__(self, module, parameters):
        self.module = module
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, foreach=True)

    def __call__(self, *args):
        return self.module(*args)

    def backward(self, loss):
        loss.backward()

    def zero_optimization_stage(self):
        return 0

    def is_gradient_accumulation_boundary(self):
        return True

    def step(self):
        self.optimizer.step()
        self.optimizer.zero_grad()


def test_training_steps_with_the_identity_loss(model, tmp_path, monkeypatch, accelerator):
    from components.face import load_arcface
    from components.training.batch import StepInputs, step_inputs
    from components.training.config import TrainConfig
    from components.training.objective import draw_step
    from components.training.prompts import Prompts
    from components.training.step import FaceIdentity, Objective, train_step
    from tests.unit.training.made_runs import join_alone

    join_alone()
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    base = load_base(model, torch.device("cpu"), HALF)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, model)
    for part in (base.unet, base.text_encoder, base.vae, adapter):
        part.to(META, HALF)  # the engine casts what is trained, too; its float32 masters are its own
    photoverse = PhotoVerseModel(base.unet, base.text_encoder, adapter)
    config = TrainConfig.parse(
        {
            "steps": 6, "global_batch_size": 4, "losses": {"min_snr_gamma": 5.0},
            "face_loss": {"fraction": 0.5, "max_timestep": 1.0, "x0_steps": 2},
        },
        source="a test",
    )  # fmt: skip
    face = FaceIdentity(base.vae, load_arcface(f"{model.base}/face_pack/identity.onnx").to(META))
    objective = Objective(config, base.noise_scheduler, base.vae.config.scaling_factor, face)
    rng = np.random.default_rng(0)
    channels = base.vae.config.latent_channels
    shape = load_extractor(model, META, HALF).shape
    sample = {
        "latents.npy": rng.random((4, 2 * channels, 16, 16)).astype(np.float16),
        "features.npy": rng.random((4, *shape)).astype(np.float16),
        "identity.npy": rng.random((4, 32)).astype(np.float32),
        "meta.json": [{"target_landmarks_xy": [[20, 25], [44, 25], [32, 36], [24, 48], [40, 48]]}] * 4,
    }
    draws = draw_step(config, base.noise_scheduler.config.num_train_timesteps, 0, 0)
    prompts = Prompts(base.tokenizer, config.prompt, len(shape))
    batch = step_inputs(sample, draws, np.arange(4), config, 0, 0, prompts, vae_scale_factor=8)
    engine = PlainEngine(photoverse, list(adapter.parameters()))
    with accelerator:
        result = train_step(engine, objective, StepInputs(0, (batch,), ("a",) * 4), META, HALF)
    assert result.terms.device.type == "meta"
    nothing_wrong(accelerator)
    # a step that waits leaves the GPU idle; the one wait is the refusal of landmarks that lie on one point
    assert sum(accelerator.waits.values()) == 1


def test_pictures_are_made(model, tmp_path, accelerator):
    base = load_base(model)
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, model)
    save_adapter(adapter, tmp_path / "adapter.safetensors", {"run_name": "a-test"})
    runtime = RuntimeConfig(device="cpu", dtype="bfloat16")
    maker = Personalizer.load(tmp_path / "adapter.safetensors", model, runtime=runtime)
    (card,) = maker.attachment.cards(torch.randn(1, *maker.extractor.shape), consent="a test")
    maker.attachment.pipe.to(META)
    maker.attachment.adapter.to(META)
    with accelerator:
        (picture,) = maker.generate([card], ["a photo of S*"], dials=Dials(num_inference_steps=2), seeds=[0])
    assert picture.size == (64, 64)
    nothing_wrong(accelerator)
