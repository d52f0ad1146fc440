"""From folders of photos to shards of samples. `prepare` needs torch and Ray: loaded on first use."""

from typing import TYPE_CHECKING, Any

from components.prepare.config import PrepareConfig

if TYPE_CHECKING:
    from components.prepare.pipeline import prepare

__all__ = ["PrepareConfig", "prepare"]


def __getattr__(name: str) -> Any:
    """Loads the pipeline when `prepare` is asked for."""
    if name != "prepare":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from components.prepare.pipeline import prepare

    return prepare
