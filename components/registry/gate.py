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


UNSTATED = ("", "not stated", "unknown")


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
    weight_licences: Mapping[str, str] | None = None,
) -> Decision:
    """Decides whether the candidate becomes champion.

    Args:
        candidate: Its evaluation.
        checkpoint: Its training.
        champion: The model in use; None where there is none.
        thresholds: What must be reached.
        measured_on: Identity of the people and settings that the candidate was judged with.
        licences: Number of training photos by licence.
        weight_licences: Licence by part of the weights that it stands on.
    """
    checks = list(_fatal_checks(candidate, checkpoint, thresholds))
    checks += _licence_checks(licences or {}, weight_licences or {}, thresholds)
    if all(check.passed for check in checks if check.fatal):
        checks += _quality_checks(candidate, checkpoint, thresholds)
        checks += _behaviour_checks(candidate, thresholds)
        checks += _champion_checks(candidate.identity, champion, thresholds, measured_on)
    failed = [check for check in checks if not check.passed]
    reasons = (*(f"failed: {c.reason}" for c in failed), *(f"passed: {c.reason}" for c in checks if c.passed))
    if any(check.fatal for check in failed):
        return Decision("refused", reasons, len(failed))
    return Decision("registered" if failed else "promoted", reasons, len(failed))


def _fatal_checks(
    candidate: EvaluationReport, checkpoint: Checkpoint, thresholds: GateThresholds
) -> Iterator[Check]:
    figures = candidate.identity
    numbers = [figures.generated, *figures.generated_interval, figures.floor, figures.base_alone]
    numbers += [*figures.by_group.values(), figures.retrieval_top1, figures.no_face_rate]
    numbers += [checkpoint.reference_gain, *checkpoint.reference_gain_interval, *checkpoint.losses.values()]
    for more in (candidate.obedience, candidate.copying):
        values = more.model_dump().values() if more else ()
        numbers += [value for value in values if isinstance(value, float)]
    finite = all(math.isfinite(number) for number in numbers)
    yield Check(finite, "all figures and losses are finite numbers", fatal=True)
    yield Check(candidate.count_out > 0, f"{candidate.count_out} pictures were judged, above 0", fatal=True)


def _licence_checks(
    licences: Mapping[str, int], weights: Mapping[str, str], thresholds: GateThresholds
) -> Iterator[Check]:
    blocked = {name: licences[name] for name in sorted(licences) if _is_blocked(name, thresholds)}
    found = ", ".join(f"{count} photos under {name}" for name, count in blocked.items()) or "none"
    yield Check(not blocked, f"training photos under a blocked licence: {found}", fatal=True)
    parts = [
        f"{part} ({weights[part]})" for part in sorted(weights) if _is_blocked(weights[part], thresholds)
    ]
    yield Check(not parts, f"weights under a blocked licence: {', '.join(parts) or 'none'}", fatal=True)
    if thresholds.licences_stated:
        silent = [f"{count} photos" for name, count in licences.items() if name in UNSTATED]
        silent += [part for part, licence in sorted(weights.items()) if licence in UNSTATED]
        silent += [] if licences else ["all photos"]
        silent += [] if weights else ["all weights"]
        yield Check(not silent, f"without a stated licence: {', '.join(silent) or 'nothing'}")


def _is_blocked(licence: str, thresholds: GateThresholds) -> bool:
    return any(
        licence.startswith(word[:-1]) if word.endswith("*") else licence == word
        for word in thresholds.blocked_licences
    )


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


def _behaviour_checks(candidate: EvaluationReport, thresholds: GateThresholds) -> Iterator[Check]:
    obedience, copying = candidate.obedience, candidate.copying
    if obedience is None:
        unasked = thresholds.obedience == 0
        yield Check(unasked, f"obedience to prompts was not measured, {thresholds.obedience} asked for")
    else:
        yield _at_least("obedience to prompts", obedience.obeyed, thresholds.obedience)
        if obedience.base is not None:
            limit = thresholds.obedience_of_base * obedience.base
            meaning = f" (base alone {obedience.base:.4f} x {thresholds.obedience_of_base})"
            yield _at_least("obedience to prompts", obedience.obeyed, limit, meaning)
    if copying is None:
        return
    yield _at_most("correlation with the very photo", copying.generated, thresholds.copying, " (1 is a copy)")
    if copying.very_photo is not None and copying.other_photos is not None:
        margin = copying.very_photo - copying.other_photos
        meaning = f" (identity judge: {copying.very_photo:.4f} against {copying.other_photos:.4f})"
        yield _at_most(
            "nearness to the very photo over other photos", margin, thresholds.copy_margin, meaning
        )
    if copying.diversity is not None:
        yield _at_least("variety of a person's pictures", copying.diversity, thresholds.diversity)


def _champion_checks(
    figures: IdentityFigures, champion: ChampionFigures | None, thresholds: GateThresholds, measured_on: str
) -> Iterator[Check]:
    if champion is None:
        yield Check(True, "there is no champion to compare with")
        return
    name = f"champion version {champion.version}"
    alike = champion.measured_on == measured_on
    if alike:
        meaning = f" ({name}: {champion.identity.generated:.4f} - {thresholds.champion_tolerance})"
        limit = champion.identity.generated - thresholds.champion_tolerance
        yield _at_least("generated similarity", figures.generated, limit, meaning)
    else:
        yield Check(True, f"means are not compared with {name}: it was judged on other people or settings")
    missing = sorted(set(champion.identity.by_group) - set(figures.by_group))
    listed = ", ".join(missing) or "none"
    yield Check(not missing, f"groups that {name} was judged on and this one was not: {listed}")
    if figures.by_group and champion.identity.by_group:
        group, worst = worst_group(figures)
        _, champions_worst = worst_group(champion.identity)
        limit = champions_worst - thresholds.worst_group_tolerance
        where = "" if alike else ", on other people or settings; groups are compared all the same"
        meaning = f" ({name}'s worst: {champions_worst:.4f} - {thresholds.worst_group_tolerance}{where})"
        yield _at_least(f"worst group, {group},", worst, limit, meaning)


def worst_group(figures: IdentityFigures) -> tuple[str, float]:
    """Returns name and similarity of the group that fares worst; the first by name of equals."""
    name = min(sorted(figures.by_group), key=lambda group: figures.by_group[group])
    return name, figures.by_group[name]
