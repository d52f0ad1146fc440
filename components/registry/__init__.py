"""The registry: a gate that decides, versions and aliases in MLflow, the served model.

Stage and store are loaded when first used, so that whoever needs only the config stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from components.registry.config import GateThresholds, RegistryConfig, ServingLimits

if TYPE_CHECKING:
    from components.registry.gate import ChampionFigures, Decision, decide
    from components.registry.resolved import ResolvedModel, resolve
    from components.registry.stage import promote

_HOME = {
    "ChampionFigures": "gate",
    "Decision": "gate",
    "ResolvedModel": "resolved",
    "decide": "gate",
    "promote": "stage",
    "resolve": "resolved",
}

__all__ = [
    "ChampionFigures",
    "Decision",
    "GateThresholds",
    "RegistryConfig",
    "ResolvedModel",
    "ServingLimits",
    "decide",
    "promote",
    "resolve",
]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
