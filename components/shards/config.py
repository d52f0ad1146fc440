"""How shards are read. Whoever reads them (training) holds these settings in a config of its own."""

from pydantic import Field

from components.core import StrictConfig


class ReaderConfig(StrictConfig):
    """Limits of the reader. Other values may mean another order of samples: keep them over a resumed run.

    Attributes:
        memory_limit_mb: Splits whose tars are together no larger are decoded once and kept, in every rank.
            Decoded, pictures of 64 px take about as much, photos of 512 px up to four times as much.
        shuffle_window: Samples that streaming keeps, encoded, to draw from.
    """

    memory_limit_mb: float = Field(default=256, ge=0)
    shuffle_window: int = Field(default=512, ge=1, le=100_000)
