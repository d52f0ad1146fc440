"""8-bit Adam and offloaded state train, and resume bit for bit."""

from importlib.util import find_spec

import pytest
from safetensors.torch import load_file

from tests.unit.training.made_runs import run_alone
from tests.unit.training.test_loop import losses

BARE = {"validation": {"timesteps": 1, "sample_people": 0}, "steps": 4, "checkpoint_every": 2}


def assert_resumes_bitwise(make_job, **settings):
    job, again = (make_job(name, **settings, **BARE) for name in ("whole", "again"))
    _, kept = run_alone(job)
    run_alone(again, resume_from=kept[2])
    assert losses(again.folder) == losses(job.folder)[2:]
    assert (again.folder / "adapter.safetensors").read_bytes() == (
        job.folder / "adapter.safetensors"
    ).read_bytes()
    return job, kept


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="an extra package: make test-adam8bit")
@pytest.mark.parametrize("stage", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_8_bit_adam(make_job, finished, stage):
    job, kept = assert_resumes_bitwise(make_job, optimizer={"kind": "adamw8bit"}, zero_stage=stage)
    state = load_file(kept[4] / "state.safetensors")
    quantised = [value for name, value in state.items() if name.endswith("/state1") and value.numel() >= 4096]
    assert bool(quantised) == (
        stage == 1
    )  # parameters of under 4,096 numbers keep 32 bits; ZeRO lays all in one
    assert all(str(value.dtype) == "torch.uint8" for value in quantised)  # a byte a moment
    for one, other in zip(losses(job.folder), losses(finished[0].folder), strict=False):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.02)  # as AdamW, to what quantising costs


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_offloaded_optimizer_state(make_job, finished, stage):
    job, _ = assert_resumes_bitwise(make_job, zero_stage=stage, offload="optimizer")
    for one, other in zip(losses(job.folder), losses(finished[0].folder), strict=False):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
