"""How well a trained adapter keeps the identity of people it never saw: pictures, judges, figures, report.

The stage function is loaded when first used, so that whoever needs only the config stays light.
"""

from typing import TYPE_CHECKING, Any

from components.evaluation.config import EvaluationConfig

if TYPE_CHECKING:
    from components.evaluation.stage import evaluate

__all__ = ["EvaluationConfig", "evaluate"]


def __getattr__(name: str) -> Any:
    """Loads the stage function."""
    if name != "evaluate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from components.evaluation.stage import evaluate

    return evaluate
