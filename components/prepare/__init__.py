"""From sets of photos to shards of samples. What needs torch, Ray or pyarrow is loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from components.prepare.config import PrepareConfig, SourceConfig

if TYPE_CHECKING:
    from components.prepare.diverse import DiverseRequest, pick_diverse_set
    from components.prepare.forget import ForgottenInSet, forget_in_set
    from components.prepare.pipeline import prepare
    from components.prepare.sources import sources_digest

_HOME = {
    "DiverseRequest": "diverse",
    "ForgottenInSet": "forget",
    "forget_in_set": "forget",
    "pick_diverse_set": "diverse",
    "prepare": "pipeline",
    "sources_digest": "sources",
}

__all__ = [
    "DiverseRequest",
    "ForgottenInSet",
    "PrepareConfig",
    "SourceConfig",
    "forget_in_set",
    "pick_diverse_set",
    "prepare",
    "sources_digest",
]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
