"""The model card, written from the run: data, licences, groups, figures, limits, intended use."""

from components.core import Checkpoint, EvaluationReport, IdentityFigures, ShardManifest
from components.registry.gate import Decision


def write_model_card(
    name: str,
    base: str,
    checkpoint: Checkpoint,
    report: EvaluationReport,
    manifest: ShardManifest,
    decision: Decision,
) -> str:
    """Returns the card as Markdown."""
    licences = ", ".join(f"{key} ({count} photos)" for key, count in sorted(manifest.licences.items()))
    samples = ", ".join(f"{count} {split}" for split, count in manifest.samples.items())
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
        f"Licences: {licences or 'not recorded'}. Photos that could not be used: {manifest.rejects}.",
        "## Figures",
        f"On {report.people} held-out people, {report.count_out} pictures.\n"
        f"Held-out reference gain (relative loss that the right photo saves): "
        f"{checkpoint.reference_gain:+.4f} (95% interval over people {low:+.4f} to {high:+.4f}).",
        _table("identity net", report.identity),
        *([_table("colour histogram", report.colour)] if report.colour else []),
        "## Limits",
        f"Base model: {base}; what it cannot draw, the adapter cannot either. Similarity is judged by "
        "networks, with their own errors and uneven treatment of groups; see the figures by group.",
        "## The gate",
        f"Decision: {decision.decision}.\n\n" + "\n".join(f"- {reason}" for reason in decision.reasons),
    ]
    return "\n\n".join(parts) + "\n"


def _table(judge: str, figures: IdentityFigures) -> str:
    low, high = figures.generated_interval
    rows = {
        "generated": f"{figures.generated:.3f} ({low:.3f} to {high:.3f})",
        "floor: different people": f"{figures.floor:.3f}",
        "base model alone": f"{figures.base_alone:.3f}",
        "ceiling: another photo": "not measured" if figures.ceiling is None else f"{figures.ceiling:.3f}",
        "top-1 retrieval": f"{figures.retrieval_top1:.1%}",
        "pictures without a face": f"{figures.no_face_rate:.1%}",
    }
    rows |= {f"group {name}": f"{value:.3f}" for name, value in sorted(figures.by_group.items())}
    rows |= {f"gender {name}": f"{value:.3f}" for name, value in sorted(figures.by_gender.items())}
    return "\n".join(
        [f"| {judge} | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    )
