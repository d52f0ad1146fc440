"""Training of the PhotoVerse adapter: objective, losses, loop, DeepSpeed, Ray Train, checkpoints, validation."""

from components.training.config import TrainConfig

__all__ = ["TrainConfig"]
