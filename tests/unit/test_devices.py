"""Where to compute and in which precision is chosen in `core.runtime` alone; read from the code itself."""

import ast
from pathlib import Path

import pytest
import torch

from components.core import pick_dtype
from components.training.config import TrainConfig
from components.training.engine import deepspeed_settings
from flows.config import resolve

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for part in ("components", "flows") for path in (ROOT / part).rglob("*.py"))

CHOOSERS = {
    "components/core/runtime.py": "the choice itself",
    "components/training/engine.py": "DeepSpeed must be told that there is no GPU before it is imported",
    "components/prepare/stages.py": "an actor gets its device from the cluster's resources, by name",
    "flows/doctor.py": "names what is there",
    "flows/scale_rates.py": "counts on the device that holds no numbers",
}
DOUBLES = {
    "components/face/warp.py": "a solve for five points, and a grid that float32 makes coarse",
    "components/model/fits.py": "evenly spaced indices into a billion weights",
    "components/training/validation.py": "sums of losses that are compared between runs",
    "components/inference/export.py": "solves on the CPU, once for each export",
    "components/portraits/pretrain/linear.py": "principal components, on the CPU",
}


def faults_in(file: str, source: str) -> list[str]:
    """Returns the places where a file chooses a device or a double by itself."""
    found = []
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Call) else ""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            found.append(f"{file}:{node.lineno}: .cuda() moves to one kind of device: use .to(device)")
        if text.startswith("torch.cuda.") and isinstance(node, ast.Attribute) and file not in CHOOSERS:
            found.append(f"{file}:{node.lineno}: {text}: ask core.pick_device")
        if text.startswith("torch.device(") and isinstance(node, ast.Call) and file not in CHOOSERS:
            found.append(f"{file}:{node.lineno}: {text}: ask core.pick_device")
        double = (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "double"
        )
        if (double or text in ("torch.float64", "torch.double")) and file not in DOUBLES:
            found.append(
                f"{file}:{node.lineno}: {text}: float64 halves a GPU's speed or worse, and some have none"
            )
        if isinstance(node, ast.Call) and text.startswith("torch.set_default_"):
            found.append(f"{file}:{node.lineno}: {text}: changes every tensor of the process")
    return found


def test_no_file_chooses_for_itself():
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
    assert len(sources) > 100
    assert [fault for file, source in sources.items() for fault in faults_in(file, source)] == []


@pytest.mark.parametrize(
    "line",
    [
        "model.cuda()", "x = torch.device('cuda')", "if torch.cuda.is_available(): pass", "y = x.double()",
        "z = torch.zeros(3, dtype=torch.float64)", "torch.set_default_dtype(torch.float32)",
    ],
)  # fmt: skip
def test_a_choice_is_seen(line):
    assert faults_in("components/model/x.py", line)


def test_every_exception_is_still_one():
    for file in [*CHOOSERS, *DOUBLES]:
        source = (ROOT / file).read_text(encoding="utf-8")
        words = ("torch.cuda", "torch.device(") if file in CHOOSERS else ("float64", ".double()")
        assert any(word in source for word in words), f"{file} needs no exception any more"


@pytest.mark.parametrize("gpus", [1, 8, 64])
@pytest.mark.parametrize(("profile", "dtype"), [("sd15", torch.float16), ("sd21", torch.bfloat16)])
def test_deepspeed_accepts_the_settings_of_1_8_and_64_gpus(profile, gpus, dtype, monkeypatch):
    """DeepSpeed's own reader checks them: the batch adds up, the ZeRO stage splits, half precision is on."""
    import deepspeed.comm
    from deepspeed.runtime.config import DeepSpeedConfig

    monkeypatch.setattr(deepspeed.comm, "get_rank", lambda *group: 0)
    monkeypatch.setattr(deepspeed.comm, "get_world_size", lambda *group: gpus)
    micro = min(8, 64 // gpus)
    overrides = {"train": {"num_workers": gpus, "micro_batch_size": micro}}
    config = resolve(profile, overrides, name="x").train
    assert config.global_batch_size == 64  # the paper's, on any number of GPUs
    settings = deepspeed_settings(config, gpus, dtype)
    found = DeepSpeedConfig(settings)
    assert found.world_size == gpus
    assert found.train_batch_size == 64
    assert found.train_micro_batch_size_per_gpu == micro
    assert found.gradient_accumulation_steps == 64 // gpus // micro
    assert found.zero_optimization_stage >= 1
    halves = found.bfloat16_config.enabled, found.float16_config.enabled
    assert halves == (dtype == torch.bfloat16, dtype == torch.float16)


def test_a_batch_that_does_not_fit_the_gpus_is_refused():
    with pytest.raises(ValueError, match="multiple of num_workers"):
        TrainConfig(global_batch_size=64, num_workers=48)


def test_auto_is_float32_on_a_cpu_and_half_elsewhere(monkeypatch):
    assert pick_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert pick_dtype(torch.device("cuda")) == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert pick_dtype(torch.device("cuda")) == torch.float16
