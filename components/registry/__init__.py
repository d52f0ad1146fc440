"""The registry: a gate that decides, versions and aliases in MLflow, the served model.

Stage and store are loaded when first used, so that whoever needs only the config stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from components.registry.config import GateThresholds, RegistryConfig, ServingLimits

if TYPE_CHECKING:
    from components.registry.answers import answer_of, log_fault, one_line
    from components.registry.audit import Entry, read_entries
    from components.registry.engine import Drawn, Engine, Job, PersonalizerEngine, Result, load_engine
    from components.registry.gate import ChampionFigures, Decision, decide
    from components.registry.package import Package, read_package
    from components.registry.request import Request, decode_photo, parse_request, request_schema
    from components.registry.resolved import ResolvedModel, resolve
    from components.registry.rollback import roll_back
    from components.registry.stage import promote
    from components.registry.store import NoVersion, Store
    from components.registry.surroundings import Surroundings

_HOME = {
    "ChampionFigures": "gate",
    "Decision": "gate",
    "Drawn": "engine",
    "Engine": "engine",
    "Entry": "audit",
    "Job": "engine",
    "NoVersion": "store",
    "Package": "package",
    "PersonalizerEngine": "engine",
    "Request": "request",
    "ResolvedModel": "resolved",
    "Result": "engine",
    "Store": "store",
    "Surroundings": "surroundings",
    "answer_of": "answers",
    "decide": "gate",
    "decode_photo": "request",
    "load_engine": "engine",
    "log_fault": "answers",
    "one_line": "answers",
    "parse_request": "request",
    "promote": "stage",
    "read_entries": "audit",
    "read_package": "package",
    "request_schema": "request",
    "resolve": "resolved",
    "roll_back": "rollback",
}

__all__ = [
    "ChampionFigures",
    "Decision",
    "Drawn",
    "Engine",
    "Entry",
    "GateThresholds",
    "Job",
    "NoVersion",
    "Package",
    "PersonalizerEngine",
    "RegistryConfig",
    "Request",
    "ResolvedModel",
    "Result",
    "ServingLimits",
    "Store",
    "Surroundings",
    "answer_of",
    "decide",
    "decode_photo",
    "load_engine",
    "log_fault",
    "one_line",
    "parse_request",
    "promote",
    "read_entries",
    "read_package",
    "request_schema",
    "resolve",
    "roll_back",
]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
