"""The gate: may this candidate become champion? A function of values alone; it says each reason.

Three answers: "promoted" (every check passed), "registered" (kept as a version, not in use), "refused" (not
even kept: its figures are no numbers, or its data may not be used).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from components.core import Checkpoint, EvaluationReport, IdentityFigures, StrictConfig
from components.registry.config import GateThresholds


class ChampionFigures(StrictConfig):
    """What the gate knows of the model in use.

    Attributes:
        version: Its version in the registry.
        measured_on: Identity of the people and settings it was judged with; figures of others are not
            compared.
        identity: Its figures by the identity judge.
    """

    version: str
    measured_on: str
    identity: IdentityFigures


@dataclass(frozen=True)
class Check:
    """One rule: whether it holds, and the sentence that says so with both numbers."""

    passed: bool
    reason: str
    fatal: bool = False


@dataclass(frozen=True)
class Decision:
    """What becomes of the candidate, and why: failed checks first, then passed ones."""

    decision: Literal["promoted", "registered", "refused"]
    reasons: tuple[str, ...]
    failed: int = 0


def decide(
    candidate: EvaluationReport,
    checkpoint: Checkpoint,
    champion: ChampionFigures | None,
    thresholds: GateThresholds,
    *,
    measured_on: str = "",
    licences: Mapping[str, int] | None = None,
) -> Decision:
    """Decides whether the candidate becomes champion.

    Args:
        candidate: Its evaluation.
        checkpoint: Its training.
        champion: The model in use; None where there is none.
        thresholds: What must be reached.
        measured_on: Identity of the people and settings that the candidate was judged with.
        licences: Number of training photos by licence.
    """
    checks = list(_fatal_checks(candidate, checkpoint, licences or {}, thresholds))
    if all(check.passed for check in checks):
        checks += _quality_checks(candidate, checkpoint, thresholds)
        checks += _champion_checks(candidate.identity, champion, thresholds, measured_on)
    failed = [check for check in checks if not check.passed]
    reasons = (*(f"failed: {c.reason}" for c in failed), *(f"passed: {c.reason}" for c in checks if c.passed))
    if any(check.fatal for check in failed):
        return Decision("refused", reasons, len(failed))
    return Decision("registered" if failed else "promoted", reasons, len(failed))


def _fatal_checks(
    candidate: EvaluationReport,
    checkpoint: Checkpoint,
    licences: Mapping[str, int],
    thresholds: GateThresholds,
) -> Iterator[Check]:
    figures = candidate.identity
    numbers = [figures.generated, *figures.generated_interval, figures.floor, figures.base_alone]
    numbers += [*figures.by_group.values(), figures.retrieval_top1, figures.no_face_rate]
    numbers += [checkpoint.reference_gain, *checkpoint.reference_gain_interval, *checkpoint.losses.values()]
    finite = all(math.isfinite(number) for number in numbers)
    yield Check(finite, "all figures and losses are finite numbers", fatal=True)
    yield Check(candidate.count_out > 0, f"{candidate.count_out} pictures were judged, above 0", fatal=True)
    blocked = {name: licences[name] for name in sorted(set(licences) & set(thresholds.blocked_licences))}
    found = ", ".join(f"{count} photos under {name}" for name, count in blocked.items()) or "none"
    yield Check(not blocked, f"training photos under a blocked licence: {found}", fatal=True)


def _above(what: str, value: float, limit: float, meaning: str = "") -> Check:
    verb = "is above" if value > limit else "is not above"
    return Check(value > limit, f"{what} {value:.4f} {verb} {limit:.4f}{meaning}")


def _at_most(what: str, value: float, limit: float, meaning: str = "") -> Check:
    verb = "is at most" if value <= limit else "is more than"
    return Check(value <= limit, f"{what} {value:.4f} {verb} {limit:.4f}{meaning}")


def _at_least(what: str, value: float, limit: float, meaning: str = "") -> Check:
    verb = "is at least" if value >= limit else "is less than"
    return Check(value >= limit, f"{what} {value:.4f} {verb} {limit:.4f}{meaning}")


def _quality_checks(
    candidate: EvaluationReport, checkpoint: Checkpoint, thresholds: GateThresholds
) -> Iterator[Check]:
    figures, low = candidate.identity, candidate.identity.generated_interval[0]
    enough = candidate.people >= thresholds.minimum_people
    yield Check(enough, f"{candidate.people} people judged, at least {thresholds.minimum_people} asked for")
    gain_low = checkpoint.reference_gain_interval[0]
    yield _above("lower end of reference gain", gain_low, thresholds.reference_gain_low)
    yield _above(
        "lower end of generated similarity",
        low,
        figures.floor + thresholds.above_floor,
        f" (floor {figures.floor:.4f} + {thresholds.above_floor})",
    )
    yield _above(
        "lower end of generated similarity",
        low,
        figures.base_alone + thresholds.above_base,
        f" (base alone {figures.base_alone:.4f} + {thresholds.above_base})",
    )
    yield _at_most("share of pictures without a face", figures.no_face_rate, thresholds.no_face_rate)
    chance = 1 / max(candidate.people, 1)
    yield _at_least(
        "top-1 retrieval",
        figures.retrieval_top1,
        thresholds.retrieval_over_chance * chance,
        f" (chance {chance:.4f} x {thresholds.retrieval_over_chance})",
    )
    if figures.by_group:
        name, worst = worst_group(figures)
        yield _above(
            f"worst group, {name},",
            worst,
            figures.floor + thresholds.worst_group,
            f" (floor {figures.floor:.4f} + {thresholds.worst_group})",
        )
        gap = max(figures.by_group.values()) - worst
        yield _at_most("gap between the best and the worst group", gap, thresholds.largest_gap)
    if candidate.colour is not None:
        colour = candidate.colour
        limit = colour.floor + thresholds.colour_above_floor
        meaning = f" (its floor + {thresholds.colour_above_floor})"
        yield _above("colour similarity", colour.generated, limit, meaning)


def _champion_checks(
    figures: IdentityFigures, champion: ChampionFigures | None, thresholds: GateThresholds, measured_on: str
) -> Iterator[Check]:
    if champion is None:
        yield Check(True, "there is no champion to compare with")
        return
    name = f"champion version {champion.version}"
    if champion.measured_on != measured_on:
        yield Check(True, f"not compared with {name}: it was judged on other people or settings")
        return
    meaning = f" ({name}: {champion.identity.generated:.4f} - {thresholds.champion_tolerance})"
    limit = champion.identity.generated - thresholds.champion_tolerance
    yield _at_least("generated similarity", figures.generated, limit, meaning)
    missing = sorted(set(champion.identity.by_group) - set(figures.by_group))
    listed = ", ".join(missing) or "none"
    yield Check(not missing, f"groups that {name} was judged on and this one was not: {listed}")
    if figures.by_group and champion.identity.by_group:
        group, worst = worst_group(figures)
        _, champions_worst = worst_group(champion.identity)
        limit = champions_worst - thresholds.worst_group_tolerance
        meaning = f" ({name}'s worst: {champions_worst:.4f} - {thresholds.worst_group_tolerance})"
        yield _at_least(f"worst group, {group},", worst, limit, meaning)


def worst_group(figures: IdentityFigures) -> tuple[str, float]:
    """Returns name and similarity of the group that fares worst; the first by name of equals."""
    name = min(sorted(figures.by_group), key=lambda group: figures.by_group[group])
    return name, figures.by_group[name]
