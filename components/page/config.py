"""Settings of the page: what may be asked for at once, and how long things stay."""

from pydantic import Field

from components.core import StrictConfig


class PageConfig(StrictConfig):
    """Limits of the page.

    Attributes:
        max_images: The most pictures of one click.
        max_steps: The most denoising steps.
        max_prompt_characters: A longer prompt is refused.
        max_photo_mb: A larger upload is refused.
        max_waiting: Clicks that may wait; the next one is told to come back.
        history: Pictures that a session remembers, oldest dropped first.
        forget_after_s: Seconds after which an abandoned session's pictures are removed.
    """

    max_images: int = Field(default=8, ge=1, le=64)
    max_steps: int = Field(default=60, ge=1, le=1000)
    max_prompt_characters: int = Field(default=1000, ge=1)
    max_photo_mb: int = Field(default=20, ge=1)
    max_waiting: int = Field(default=16, ge=1)
    history: int = Field(default=48, ge=1)
    forget_after_s: int = Field(default=3600, ge=60)
