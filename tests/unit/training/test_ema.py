"""The average of the weights against its formula."""

import torch
from torch import nn

from components.training.ema import Ema


def test_average_follows_the_formula_and_forgets_the_start():
    weight = nn.Parameter(torch.tensor([0.0]))
    ema = Ema({"w": weight}, decay=0.5)
    expected = 0.0
    for step, value in enumerate((1.0, 2.0, 5.0, 3.0)):
        with torch.no_grad():
            weight.fill_(value)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(ema.average["w"], torch.tensor([expected]))
    ema.apply()
    torch.testing.assert_close(weight.data, torch.tensor([expected]))


def test_it_goes_on_from_a_saved_state_in_float32():
    weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    ema = Ema({"w": weight}, 0.9, average={"w": torch.tensor([0.1, 0.2])})
    assert ema.average["w"].dtype == torch.float32
    assert torch.equal(ema.whole()["w"], torch.tensor([0.1, 0.2]))
