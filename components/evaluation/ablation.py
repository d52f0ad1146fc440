"""The variants of the ablation as overrides of the settings, and what their reports say side by side.

Every variant sees the same data, seed and number of steps; what differs is one part of the method. Not
inside: running them (flows/ablate.py) and the page (`ablation_page.py`).
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from components.core import StrictConfig, derive_seed
from components.evaluation import metrics
from components.evaluation.scores import Figure

PAPER_GROUPS = ("Black", "Brown", "White", "Yellow", "all")
FULL = "full"


class Variant(StrictConfig):
    """One line of the ablation.

    Attributes:
        title: For people.
        overrides: Settings that differ from the full method's, nested as in a profile.
        paper: Its line of Table 1 (PhotoVerse), ordered as `PAPER_GROUPS`; None where the paper has none.
    """

    title: str
    overrides: dict[str, Any] = {}
    paper: tuple[float, float, float, float, float] | None = None


# A branch that is off is off in training (Eq. 4 always draws the other one, at weight 1) and in the pictures.
VARIANTS: dict[str, Variant] = {
    FULL: Variant(title="full method", paper=(0.685, 0.702, 0.715, 0.682, 0.696)),
    "no-visual-branch": Variant(
        title="no visual branch",
        overrides={
            "train": {
                "fusion": {"r1": 1.0, "r2": 1.0, "text_factor": 1.0, "warmup_steps": 0},
                "losses": {"lambda_visual": 0.0},
            },
            "evaluation": {"dials": {"sigma": 0.0}},
        },
        paper=(0.561, 0.563, 0.584, 0.556, 0.556),
    ),
    "no-visual-regularizer": Variant(
        title="no mean|V_S| regulariser",
        overrides={"train": {"losses": {"lambda_visual": 0.0}}},
        paper=(0.566, 0.573, 0.589, 0.550, 0.569),
    ),
    "no-face-loss": Variant(
        title="no face loss",
        overrides={"train": {"face_loss": {"lambda_face": 0.0}}},
        paper=(0.632, 0.658, 0.663, 0.622, 0.643),
    ),
    "no-text-regularizer": Variant(
        title="no mean|p_f| regulariser",
        overrides={"train": {"losses": {"lambda_text": 0.0}}},
        paper=(0.650, 0.668, 0.678, 0.657, 0.663),
    ),
    "no-text-branch": Variant(
        title="no text branch",
        overrides={
            "train": {
                "fusion": {"r1": 0.0, "r2": 0.0, "visual_factor": 1.0, "warmup_steps": 0},
                "losses": {"lambda_text": 0.0},
            },
            "evaluation": {"dials": {"gamma": 0.0}},
        },
    ),
    "batch-fusion": Variant(
        title="fusion drawn per batch", overrides={"train": {"fusion": {"draw": "batch"}}}
    ),
    "no-lora": Variant(
        title="no LoRA", overrides={"train": {"alpha": 0.0}, "evaluation": {"dials": {"alpha": 0.0}}}
    ),
}


class Line(StrictConfig):
    """One line of the ablation's table; the full method is the line that the others are compared with.

    Attributes:
        variant: Its key in `VARIANTS`.
        title: For people.
        judges: Similarity of generated pictures by judge, over all people.
        groups: The identity judge's similarity by group.
        retrieval_top1: Share of pictures whose person is found again.
        found: Share of pictures with a face.
        obedience: Share of checkable wishes that were met, where prompts were evaluated.
        reference_gain: Held-out reference gain of its training, where known.
        seconds: Wall time of training and of the evaluation, where known.
        difference: Full method minus this variant by the identity judge, paired by person.
        second_difference: The same by the second judge, else the colour judge.
        sureness: Share of resamples of people in which the full method is better (identity judge).
        apart: Whether the two intervals by the identity judge do not overlap.
        verdict: What to make of it.
        paper: The variant's "all" in Table 1.
        paper_difference: Full method minus variant there.
    """

    variant: str
    title: str
    judges: dict[str, Figure]
    groups: dict[str, Figure] = {}
    retrieval_top1: Figure
    found: Figure
    obedience: Figure | None = None
    reference_gain: float | None = None
    seconds: dict[str, float] = {}
    difference: Figure | None = None
    second_difference: Figure | None = None
    sureness: float | None = Field(default=None, ge=0, le=1)
    apart: bool = False
    verdict: Literal["reference", "worse", "better", "undecided"] = "reference"
    words: str = ""
    paper: float | None = None
    paper_difference: float | None = None


def ablation_lines(
    reports: Mapping[str, Mapping[str, Any]], *, seed: int = 0, samples: int = 2000, confidence: float = 0.95
) -> list[Line]:
    """Returns one line a variant, in the order of `VARIANTS`.

    Args:
        reports: Contents of each finished variant's `report.json`, by variant; "full" must be there.
        seed: Of the bootstrap over people.
        samples: Resamples.
        confidence: Coverage of the intervals.

    Raises:
        ValueError: The full method is missing, or a variant was judged on other people, seeds or judges.
    """
    if FULL not in reports:
        raise ValueError(f"the ablation compares with {FULL!r}, which is not among {sorted(reports)}")
    full = reports[FULL]
    lines = []
    for variant in (name for name in VARIANTS if name in reports):
        _check_alike(variant, full, reports[variant])
        line = _line(variant, reports[variant])
        if variant != FULL:
            settings = {"samples": samples, "confidence": confidence}
            line = line.model_copy(update=_comparison(variant, full, reports[variant], seed, settings))
        lines.append(line)
    return lines


def _check_alike(variant: str, full: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Refuses to compare what was not measured alike."""
    for what in ("judge_marks", "seed", "pictures_per_reference", "prompt"):
        if full[what] != other[what]:
            raise ValueError(
                f"variant {variant!r} was judged with another {what}: {other[what]!r}, not {full[what]!r}"
            )
    mine, theirs = set(full["by_person"]["identity"]), set(other["by_person"]["identity"])
    if mine != theirs:
        raise ValueError(f"variant {variant!r} was judged on other people: {len(mine ^ theirs)} differ")


def _line(variant: str, report: Mapping[str, Any]) -> Line:
    tables = report["judges"]
    main = tables["identity"]["rows"]
    described, paper = VARIANTS[variant], VARIANTS[variant].paper
    full_paper = VARIANTS[FULL].paper
    obedience = (report.get("obedience") or {}).get("obeyed")
    return Line(
        variant=variant,
        title=described.title,
        judges={judge: _figure(table["rows"]["all"]["generated"]) for judge, table in tables.items()},
        groups={
            name.removeprefix("group: "): _figure(row["generated"])
            for name, row in main.items()
            if name.startswith("group: ")
        },
        retrieval_top1=_figure(main["all"]["retrieval_top1"]),
        found=_figure(main["all"]["found"]),
        obedience=_figure(obedience) if obedience else None,
        paper=paper[-1] if paper else None,
        paper_difference=round(full_paper[-1] - paper[-1], 3)
        if paper and full_paper and variant != FULL
        else None,
    )


def _figure(values: Mapping[str, Any]) -> Figure:
    return Figure.parse(values, source="report.json")


def _comparison(
    variant: str,
    full: Mapping[str, Any],
    other: Mapping[str, Any],
    seed: int,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    second = next((judge for judge in ("second", "colour") if judge in full["by_person"]), "identity")
    drawn = {judge: derive_seed(seed, "ablation", variant, judge) % 2**32 for judge in ("identity", second)}
    gaps = {judge: paired(full, other, judge) for judge in ("identity", second)}
    difference = _gap_figure(gaps["identity"], drawn["identity"], **settings)
    intervals = [
        report["judges"]["identity"]["rows"]["all"]["generated"]["interval"] for report in (full, other)
    ]
    apart = intervals[0][0] > intervals[1][1] or intervals[1][0] > intervals[0][1]
    sureness = share_above_zero(gaps["identity"], drawn["identity"], settings["samples"])
    verdict = verdict_of(difference)
    return {
        "difference": difference,
        "second_difference": _gap_figure(gaps[second], drawn[second], **settings),
        "sureness": sureness,
        "apart": apart,
        "verdict": verdict,
        "words": in_words(variant, verdict, sureness, apart),
    }


def paired(full: Mapping[str, Any], other: Mapping[str, Any], judge: str) -> np.ndarray:
    """Returns (P,): full method minus variant for each person, in order of names."""
    mine, theirs = full["by_person"][judge], other["by_person"][judge]
    return np.array([mine[person] - theirs[person] for person in sorted(mine)])


def _gap_figure(gaps_P: np.ndarray, seed: int, *, samples: int, confidence: float) -> Figure:
    interval = metrics.bootstrap_interval(
        gaps_P, seed=seed, samples=samples, confidence=confidence, bounds=(-2.0, 2.0)
    )
    return Figure(mean=float(gaps_P.mean()), interval=interval, people=len(gaps_P))


def share_above_zero(gaps_P: np.ndarray, seed: int, samples: int) -> float:
    """Returns the share of resamples of people whose mean is above 0, half of those that are exactly 0."""
    draws = gaps_P[np.random.default_rng(seed).integers(len(gaps_P), size=(samples, len(gaps_P)))].mean(1)
    return float((draws > 0).mean() + 0.5 * (draws == 0).mean())


def verdict_of(difference: Figure) -> Literal["worse", "better", "undecided"]:
    """Returns what the interval of full minus variant says of the variant; "undecided" where it holds 0."""
    assert difference.interval is not None
    low, high = difference.interval
    return "worse" if low > 0 else "better" if high < 0 else "undecided"


def in_words(variant: str, verdict: str, sureness: float, apart: bool) -> str:
    """Returns the verdict as a sentence: does the paper's order hold here, and how sure are we."""
    asked = VARIANTS[variant].paper is not None
    share = f"full better in {sureness:.1%} of resamples of people"
    if apart:
        share += ", intervals apart"
    said = {
        "worse": "the paper's order holds" if asked else "worse than the full method",
        "better": "the other way round here" if asked else "better than the full method",
        "undecided": "no clear order here" if asked else "no clear difference",
    }[verdict]
    return f"{said} ({share})"
