"""DeepSpeed's settings, the learning rate, and the check of the tools that DeepSpeed needs."""

import numpy as np
import pytest
import torch

from components.training.config import OptimizerConfig, TrainConfig
from components.training.engine import check_toolchain, deepspeed_settings, learning_rate


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


def test_missing_tools_are_named_with_the_mend(monkeypatch, tmp_path):
    monkeypatch.setattr("components.training.engine.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        RuntimeError, match=r"no C\+\+ compiler found .* install one, e\.g\. the package g\+\+"
    ):
        check_toolchain()
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    with pytest.raises(RuntimeError, match="ninja is not installed"):
        check_toolchain()
    (tmp_path / "ninja").write_text("#!/bin/sh\n")
    (tmp_path / "ninja").chmod(0o755)
    check_toolchain()


def test_ninja_beside_the_interpreter_is_found(monkeypatch, tmp_path):
    (tmp_path / "ninja").write_text("#!/bin/sh\n")
    (tmp_path / "ninja").chmod(0o755)
    monkeypatch.setattr("components.training.engine.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr("components.training.engine.COMPILERS", ("sh",))
    check_toolchain()
