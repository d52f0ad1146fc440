"""DeepSpeed's settings, the learning rate, and a start that compiles nothing."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from components.training.config import OptimizerConfig, TrainConfig
from components.training.engine import deepspeed_settings, learning_rate, make_optimizer


def test_settings_follow_the_workers_not_the_config_alone():
    config = TrainConfig(global_batch_size=64, micro_batch_size=8, num_workers=2, zero_stage=2)
    two, four = (deepspeed_settings(config, workers, torch.float32) for workers in (2, 4))
    assert (two["train_batch_size"], two["gradient_accumulation_steps"]) == (64, 4)
    assert (four["train_batch_size"], four["gradient_accumulation_steps"]) == (64, 2)
    assert two["zero_optimization"] == {"stage": 2}
    assert "bf16" not in two
    assert "optimizer" not in two  # DeepSpeed's own would compile for minutes


@pytest.mark.parametrize(("dtype", "key"), [(torch.bfloat16, "bf16"), (torch.float16, "fp16")])
def test_half_precision_is_deepspeeds(dtype, key):
    assert deepspeed_settings(TrainConfig(), 1, dtype)[key] == {"enabled": True}


def test_offload_keeps_torchs_optimizer():
    config = TrainConfig(zero_stage=3, offload="optimizer_and_weights")
    settings = deepspeed_settings(config, 1, torch.float32)
    assert settings["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert settings["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert settings["zero_force_ds_cpu_optimizer"] is False
    states = deepspeed_settings(TrainConfig(zero_stage=1, offload="optimizer"), 1, torch.float32)
    assert "offload_param" not in states["zero_optimization"]


def test_an_optimizer_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match="needs the package bitsandbytes, which is not installed"):
        make_optimizer([torch.nn.Parameter(torch.ones(2))], OptimizerConfig(kind="adamw8bit"))


def rates(steps=100, **values):
    config = OptimizerConfig(learning_rate=0.1, **values)
    return np.array([learning_rate(step, steps, config) for step in range(steps)])


def test_learning_rate_schedules():
    np.testing.assert_array_equal(rates(), 0.1)
    warm = rates(warmup_steps=10)
    np.testing.assert_allclose(warm[:10], np.linspace(0.01, 0.1, 10))
    np.testing.assert_array_equal(warm[10:], 0.1)
    linear = rates(schedule="linear", final_share=0.2)
    np.testing.assert_allclose(np.diff(linear), -0.0008)
    cosine = rates(schedule="cosine", warmup_steps=20, final_share=0.1)
    assert cosine.argmax() in (19, 20)
    assert cosine[60] == pytest.approx(0.055)
    assert 0.01 < cosine[-1] < 0.011
    assert (np.diff(cosine[20:]) < 0).all()


START = """
import os, torch
from components.training.config import TrainConfig
from components.training.engine import start_engine
store = "file://" + os.environ["STORE"]
torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
model = torch.nn.Linear(2, 2)
engine = start_engine(model, list(model.parameters()), TrainConfig(global_batch_size=1), torch.float32)
engine.backward(engine(torch.ones(1, 2)).sum())
engine.step()
print("stepped", engine.global_steps)
"""


def test_nothing_is_compiled(tmp_path):
    """A laptop without compiler and ninja trains."""
    names = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    names |= {
        "PATH": str(tmp_path),
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "built"),
        "STORE": str(tmp_path / "store"),
    }
    done = subprocess.run(
        [sys.executable, "-c", START], env=names, capture_output=True, text=True, check=False
    )
    assert "stepped 1" in done.stdout, done.stderr
    assert not (tmp_path / "built").exists()
