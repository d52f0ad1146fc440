"""A team's server: the registered model behind Ray Serve, with a strict door.

Names are loaded when first used, so that whoever needs only the settings never imports Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from components.serving.config import ServingConfig

if TYPE_CHECKING:
    from components.serving.application import build
    from components.serving.door import Door
    from components.serving.run import Model, running, serve_until_stopped

_HOME = {
    "Door": "door",
    "Model": "run",
    "build": "application",
    "running": "run",
    "serve_until_stopped": "run",
}

__all__ = ["Door", "Model", "ServingConfig", "build", "running", "serve_until_stopped"]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
