"""The training loop: a killed run ends as one that was not, and a loss that is no number stops it."""

import numpy as np
import pytest
import torch
from torch import nn

from components.portraits.pretrain.config import Budget
from components.portraits.pretrain.fit import Task, fit


class _Killed(Exception):
    pass


def _line_task(kill_at: int | None = None) -> Task:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 1))  # Muon's and AdamW's
    steps = iter(range(10_000))

    def loss(rng: np.random.Generator, done: float) -> dict[str, torch.Tensor]:
        if next(steps) == kill_at:
            raise _Killed
        x = torch.from_numpy(rng.normal(size=(8, 4))).float()
        return {"loss": ((net(x) - x.sum(1, keepdim=True) + 0.1 * torch.randn(8, 1)) ** 2).mean()}

    return Task("line", nn.ModuleDict({"net": net}), loss)


def test_killed_run_resumed_ends_with_the_weights_of_one_that_was_not(tmp_path):
    budget = Budget(steps=30, learning_rate=0.1, warmup=3, average=0.9)
    whole = fit(_line_task(), budget, tmp_path / "a", seed=5, save_every=10)
    with pytest.raises(_Killed):
        fit(_line_task(kill_at=17), budget, tmp_path / "b", seed=5, save_every=10)
    resumed = fit(_line_task(), budget, tmp_path / "b", seed=5, save_every=10)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len((tmp_path / "losses" / "line.jsonl").read_text().splitlines()) >= 30


def test_loss_that_is_no_number_stops_the_run(tmp_path):
    net = nn.Linear(1, 1)
    task = Task(
        "bad",
        nn.ModuleDict({"net": net}),
        lambda rng, done: {"loss": net(torch.full((1, 1), torch.nan)).sum()},
    )
    with pytest.raises(FloatingPointError, match="bad: loss is nan at step 0"):
        fit(task, Budget(steps=3), tmp_path, seed=0)
