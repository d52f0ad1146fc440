"""What a training config refuses, and what it derives."""

import pytest

from components.training.config import TrainConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "a photo"}, "must hold S\\* once"),
        ({"prompt": "S* and S*"}, "must hold S\\* once"),
        ({"global_batch_size": 9, "num_workers": 2}, "multiple of num_workers"),
        (
            {"global_batch_size": 16, "num_workers": 2, "micro_batch_size": 3},
            "must divide each worker's part",
        ),
        ({"ema_decay": 0.9, "zero_stage": 3}, "zero_stage 0, 1 or 2"),
        ({"offload": "optimizer"}, "offload 'optimizer' needs zero_stage 1 or more, found 0"),
        ({"offload": "optimizer_and_weights", "zero_stage": 2}, "needs zero_stage 3 or more, found 2"),
        ({"optimizer": {"kind": "adamw8bit"}, "zero_stage": 3}, "works with zero_stage 0, 1 and 2"),
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate"),
        ({"fusion": {"r1": 1.5}}, "fusion.r1"),
        ({"zero_stage": 4}, "zero_stage"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.parse(values, source="a test")


def test_batch_is_split_over_workers_and_accumulation():
    config = TrainConfig(global_batch_size=64, num_workers=2, micro_batch_size=8)
    assert (config.micro_batch_size_of(2), config.accumulation_steps_of(2)) == (8, 4)
    assert config.accumulation_steps_of(1) == 8  # resumed with fewer workers
    whole = TrainConfig(global_batch_size=64, num_workers=4)
    assert (whole.micro_batch_size_of(4), whole.accumulation_steps_of(4)) == (16, 1)


def test_defaults_are_the_paper():
    config = TrainConfig()
    assert (config.steps, config.global_batch_size, config.optimizer.learning_rate) == (60_000, 64, 1e-4)
    assert (config.losses.lambda_text, config.losses.lambda_visual, config.face_loss.lambda_face) == (
        0.01,
        0.001,
        0.01,
    )
    assert (config.fusion.r1, config.fusion.r2, config.alpha) == (1 / 3, 2 / 3, 1.0)
