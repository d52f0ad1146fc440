"""How well a trained adapter keeps the identity of people it never saw: pictures, judges, figures, report.

What needs more than the settings is loaded when first used, so that whoever needs only these stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from components.evaluation.config import AblationConfig, EvaluationConfig

if TYPE_CHECKING:
    from components.evaluation.ablation import VARIANTS, Variant
    from components.evaluation.ablation_page import write_ablation
    from components.evaluation.forget import forget_pictures, pictures_of
    from components.evaluation.stage import evaluate

_HOME = {
    "VARIANTS": "ablation",
    "Variant": "ablation",
    "evaluate": "stage",
    "forget_pictures": "forget",
    "pictures_of": "forget",
    "write_ablation": "ablation_page",
}

__all__ = [
    "VARIANTS",
    "AblationConfig",
    "EvaluationConfig",
    "Variant",
    "evaluate",
    "forget_pictures",
    "pictures_of",
    "write_ablation",
]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
