"""ZeRO 0, 1, 2 and 3 with one and two workers and the same global batch: one run."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.training.made_groups import run_group
from tests.unit.training.test_loop import losses

SETTINGS = {
    "steps": 20, "checkpoint_every": 20, "fusion": {"warmup_steps": 5},
    "validation": {"timesteps": 1, "sample_people": 0, "bootstrap": 100},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_all_stages_and_numbers_of_workers_agree(make_job, tmp_path):
    jobs = {}
    for workers in (1, 2):
        named = [
            make_job(f"{workers}-{stage}", zero_stage=stage, num_workers=workers, **SETTINGS)
            for stage in range(4)
        ]
        run_group([replace(job, hook=None) for job in named], workers, tmp_path / f"store-{workers}")
        jobs |= {(workers, stage): job.folder for stage, job in enumerate(named)}
    reference = losses(jobs[1, 0])
    assert [row["step"] for row in reference] == list(range(1, 21))
    adapter = load_file(jobs[1, 0] / "adapter.safetensors")
    for run, folder in jobs.items():
        for one, other in zip(losses(folder), reference, strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-4), run
        found = load_file(folder / "adapter.safetensors")
        assert found.keys() == adapter.keys()
        for name in adapter:  # whole and float32, whatever the stage
            torch.testing.assert_close(found[name], adapter[name], atol=5e-4, rtol=1e-2)
