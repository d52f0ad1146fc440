"""The model card, written from the run: data, licences, groups, figures, limits, intended use."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.core import Checkpoint, EvaluationReport, IdentityFigures, ShardManifest
from components.registry.gate import Decision


def write_model_card(
    name: str,
    base: str,
    checkpoint: Checkpoint,
    report: EvaluationReport,
    manifest: ShardManifest,
    decision: Decision,
    *,
    weight_licences: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Returns the card as Markdown.

    Args:
        name: Of the registered model.
        base: Name of the base model.
        checkpoint: Its training.
        report: Its evaluation.
        manifest: Its data.
        decision: Of the gate.
        weight_licences: Licence by part of the weights that it stands on.
        facts: Contents of `report.json`.
    """
    licences = ", ".join(f"{key} ({count} photos)" for key, count in sorted(manifest.licences.items()))
    samples = ", ".join(f"{count} {split}" for split, count in manifest.samples.items())
    parts_of = ", ".join(f"{part}: {licence}" for part, licence in sorted((weight_licences or {}).items()))
    low, high = checkpoint.reference_gain_interval
    parts = [
        f"# {name}: {checkpoint.run_name}, step {checkpoint.step}",
        "A PhotoVerse adapter: it puts a person, known from one photo, into pictures of a frozen Stable "
        "Diffusion, with no tuning for that person.",
        "## Intended use",
        "Pictures of people who agreed to it, marked as made by a machine. Not for passing a picture off as "
        "a photograph, not for recognising people, not for deciding anything about them.",
        "## Data",
        f"{samples} photos; people are split by identity, held-out people were never trained on.\n"
        f"Licences: {licences or 'not recorded'}. Photos that could not be used: {manifest.rejects}.\n"
        f"Weights that it stands on: {parts_of or 'not recorded'}.",
        "## Figures",
        f"On {report.people} held-out people, {report.count_out} pictures{_chosen(facts or {})}.\n"
        f"Held-out reference gain (relative loss that the right photo saves): "
        f"{checkpoint.reference_gain:+.4f} (95% interval over people {low:+.4f} to {high:+.4f}).",
        _table("identity net", report.identity),
        *([_table("second recogniser", report.second)] if report.second else []),
        *([_table("colour histogram", report.colour)] if report.colour else []),
        *_behaviour(report, facts or {}),
        *_groups(facts or {}),
        "## Limits",
        f"Base model: {base}; what it cannot draw, the adapter cannot either. Similarity is judged by "
        "networks, with their own errors and uneven treatment of groups; see the figures by group.\n"
        "One photo of a person tells little of them; a picture that looks like somebody is no evidence of "
        "anything.",
        "## The gate",
        f"Decision: {decision.decision}.\n\n" + "\n".join(f"- {reason}" for reason in decision.reasons),
    ]
    return "\n\n".join(parts) + "\n"


def _chosen(facts: Mapping[str, Any]) -> str:
    """What a reader must know of figures whose pictures were chosen by one of the judges."""
    count = (facts.get("config", {}).get("dials") or {}).get("candidates", 1)
    return "" if count == 1 else f", each the best of {count} candidates by the identity net, the first judge"


def _table(judge: str, figures: IdentityFigures) -> str:
    low, high = figures.generated_interval
    rows = {
        "generated": f"{figures.generated:.3f} ({low:.3f} to {high:.3f})",
        "floor: different people": f"{figures.floor:.3f}",
        "base model alone": f"{figures.base_alone:.3f}",
        "ceiling: another photo": "not measured" if figures.ceiling is None else f"{figures.ceiling:.3f}",
        "the reference through the VAE": _shown(figures.through_vae),
        "top-1 retrieval": f"{figures.retrieval_top1:.1%}",
        "pictures without a face": f"{figures.no_face_rate:.1%}",
    }
    rows |= {f"group {name}": f"{value:.3f}" for name, value in sorted(figures.by_group.items())}
    rows |= {f"gender {name}": f"{value:.3f}" for name, value in sorted(figures.by_gender.items())}
    return "\n".join(
        [f"| {judge} | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    )


def _behaviour(report: EvaluationReport, facts: Mapping[str, Any]) -> Iterator[str]:
    """Obedience, copying, quality and cost, each where it was measured."""
    lines = []
    if (found := report.obedience) is not None:
        low, high = found.interval
        base = "" if found.base is None else f"; the base model alone meets {found.base:.0%}"
        sets = ", ".join(one["name"] for one in (facts.get("obedience") or {}).get("sets", []))
        lines.append(f"Obedience ({sets}): {found.obeyed:.0%} of wishes met ({low:.0%} to {high:.0%}){base}.")
    if (copying := report.copying) is not None:
        lines.append(
            f"Copying: pixels correlate {copying.generated:.3f} with the photo given (1 is a copy); "
            f"variety {_shown(copying.diversity)} (0: always the same picture). By the identity net "
            f"{_shown(copying.very_photo)} with that photo, {_shown(copying.other_photos)} with others."
        )
    if quality := facts.get("quality"):
        lines.append(
            f"Quality through {quality['features']}: FID {_shown(quality['fid'])}, "
            f"KID {_shown(quality['kid'])}, on {quality['generated']} pictures against "
            f"{quality['real']} real crops."
        )
    if (cost := facts.get("cost")) and cost.get("seconds_per_picture"):
        lines.append(
            f"Cost: {cost['seconds_per_picture']:.2f} s a picture and at most {cost['peak_gb']:.1f} GB, "
            f"on {cost['device']}."
        )
    if lines:
        yield "\n".join(lines)


def _groups(facts: Mapping[str, Any]) -> Iterator[str]:
    """The identity judge by group and gender, with intervals and the number of people."""
    rows = ((facts.get("judges") or {}).get("identity") or {}).get("rows", {})
    shown = [(name, row["generated"]) for name, row in rows.items() if name != "all"]
    lines = [
        f"| {name} | {made['people']} | {made['mean']:.3f} ({_interval(made['interval'])}) |"
        for name, made in shown
        if made["mean"] is not None
    ]
    if lines:
        yield "\n".join(["| by group, identity net | people | generated |", "|---|---|---|", *lines])


def _interval(interval: Sequence[float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _shown(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
