"""What the report says beside identity: other m, obedience, the curve of the dials, quality, cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from components.core import EvaluationReport, ObedienceFigures
from components.evaluation.looks import Obedience, Point
from components.evaluation.quality import Quality


@dataclass(frozen=True)
class Extras:
    """Everything that an evaluation measured beside the judges' tables; empty where it was not asked for.

    Attributes:
        protocol: One point for each other m and each branch alone.
        obedience: To the prompt sets.
        curve: Points by dial.
        quality: FID, KID, sharpness.
        cost: Seconds and memory of a picture, see `generate.add_cost`.
    """

    protocol: Sequence[Point] = ()
    obedience: Obedience | None = None
    curve: dict[str, list[Point]] = field(default_factory=dict)
    quality: Quality | None = None
    cost: dict[str, Any] | None = None

    def values(self) -> dict[str, Any]:
        """Returns everything as plain values for `report.json`."""
        cost = self.cost
        if cost and cost["pictures"]:
            cost = cost | {"seconds_per_picture": round(cost["seconds"] / cost["pictures"], 4)}
        return {
            "protocol": [point.model_dump(mode="json") for point in self.protocol],
            "obedience": self.obedience.model_dump(mode="json") if self.obedience else None,
            "curve": {
                dial: [point.model_dump(mode="json") for point in points]
                for dial, points in self.curve.items()
            },
            "quality": self.quality.model_dump(mode="json") if self.quality else None,
            "cost": cost,
        }


def obedience_figures(obedience: Obedience | None) -> ObedienceFigures | None:
    """Returns the record's short form; None where nothing could be checked."""
    if obedience is None or obedience.obeyed is None or obedience.obeyed.mean is None:
        return None
    base, clip_t = obedience.base_obeyed, obedience.clip_t
    return ObedienceFigures(
        obeyed=obedience.obeyed.mean,
        interval=obedience.obeyed.interval or (0.0, 1.0),
        base=base.mean if base else None,
        clip_t=clip_t.mean if clip_t else None,
    )


def extras_metrics(report: EvaluationReport, extras: Extras) -> dict[str, float | None]:
    """Returns metric names and values for MLflow."""
    named: dict[str, float | None] = {}
    if report.copying is not None:
        named |= {f"evaluate.copying.{key}": value for key, value in report.copying.model_dump().items()}
    if report.obedience is not None:
        found = report.obedience
        named |= {
            "evaluate.obedience.obeyed": found.obeyed,
            "evaluate.obedience.base": found.base,
            "evaluate.obedience.clip_t": found.clip_t,
        }
    if extras.quality is not None:
        for key in ("fid", "fid_base", "kid", "kid_base", "sharpness"):
            named[f"evaluate.quality.{key}"] = getattr(extras.quality, key)
    for point in extras.protocol:
        named[f"evaluate.protocol.{point.label.replace(' = ', '').replace(' ', '_')}"] = point.identity.mean
    if extras.cost and extras.cost["pictures"]:
        named["evaluate.cost.seconds_per_picture"] = extras.cost["seconds"] / extras.cost["pictures"]
        named["evaluate.cost.peak_gb"] = extras.cost["peak_gb"]
    return named
