"""What the report says beside its tables: settings, one row a picture, the rows of the picture grid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from components.core import Checkpoint, EvaluationReport
from components.evaluation.config import EvaluationConfig
from components.evaluation.curve_plot import plot_curve
from components.evaluation.evidence import Evidence
from components.evaluation.extras import Extras, obedience_figures
from components.evaluation.generate import picture_seeds, safe_name
from components.evaluation.panel import Verdict
from components.evaluation.report import GalleryRow, write_html, write_json, write_sheet
from components.evaluation.scores import identity_figures
from components.inference import save_png


def write_report(
    config: EvaluationConfig,
    evidence: Evidence,
    verdict: Verdict,
    checkpoint: Checkpoint,
    folder: Path,
    model_base: str = "",
    extras: Extras | None = None,
) -> EvaluationReport:
    """Writes `report.json`, `report.html` and a contact sheet, `faces.png`; returns the record."""
    extras = extras or Extras()
    facts = report_facts(config, evidence, verdict, checkpoint, model_base) | extras.values()
    references = save_references(evidence, folder)
    rows = picture_rows(config, evidence, verdict, folder, references)
    write_json(folder / "report.json", facts, verdict.tables, rows)
    gallery = gallery_rows(evidence, verdict)
    floor = verdict.tables[0].rows["all"]["floor"].mean
    write_html(
        folder / "report.html",
        facts,
        verdict.tables,
        gallery,
        evidence.base,
        config.gallery_people,
        extras=extras.values(),
        curve_plot=plot_curve(extras.curve, floor),
    )
    write_sheet(folder / "faces.png", gallery)
    by_judge = {table.judge: identity_figures(table) for table in verdict.tables}
    return EvaluationReport(
        count_in=len(evidence.generated),
        count_out=verdict.similarity_RK.size,
        report_json=str(folder / "report.json"),
        report_html=str(folder / "report.html"),
        people=facts["people"],
        identity=by_judge["identity"],
        second=by_judge.get("second"),
        colour=by_judge.get("colour"),
        copying=verdict.copying,
        obedience=obedience_figures(extras.obedience),
    )


def save_references(evidence: Evidence, folder: Path) -> dict[str, str]:
    """Saves the reference photos beside the report; returns their files by key, relative to it."""
    files = {}
    for photo in evidence.references:
        path = folder / "references" / f"{safe_name(photo.person)}-{photo.key}.png"
        if not path.is_file():
            save_png(Image.fromarray(photo.target_uint8), path)
        files[photo.key] = str(path.relative_to(folder))
    return files


def report_facts(
    config: EvaluationConfig, evidence: Evidence, verdict: Verdict, checkpoint: Checkpoint, model_base: str
) -> dict[str, Any]:
    """Returns what the report says beside its tables."""
    dials = {f"dial {name}": "default" if value is None else value for name, value in config.dials}
    return {
        "people": len({photo.person for photo in evidence.photos}),
        "references": len(evidence.generated),
        "pictures_per_reference": config.pictures_per_reference,
        "base_pictures": len(evidence.base),
        "prompt": config.prompt,
        "base_prompt": config.base_prompt,
        "seed": config.seed,
        "confidence": config.confidence,
        "resolution": evidence.photos[0].target_uint8.shape[0],
        "reference_fallbacks": verdict.reference_fallbacks,
        "judge_marks": verdict.judge_marks,
        "by_person": verdict.by_person,
        "copying": verdict.copying.model_dump(mode="json"),
        "checkpoint": checkpoint.model_dump(
            mode="json", include={"run_name", "step", "fingerprint", "mlflow_run_id"}
        ),
        "config": config.model_dump(mode="json"),
        "details": {"split": config.split, "base model": model_base, "seed": config.seed, **dials},
    }


def picture_rows(
    config: EvaluationConfig,
    evidence: Evidence,
    verdict: Verdict,
    folder: Path,
    references: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Returns one row a generated picture: person, key, seed, similarity, face found, files."""
    return [
        {
            "person": reference.person,
            "group": reference.group,
            "gender": reference.gender,
            "reference": reference.key,
            "seed": seed,
            "similarity": round(float(verdict.similarity_RK[r, k]), 6),
            "face_found": bool(verdict.found_RK[r, k]),
            "file": str(evidence.files[r][k].relative_to(folder)) if evidence.files else None,
            "reference_file": references[reference.key],
        }
        for r, reference in enumerate(evidence.references)
        for k, seed in enumerate(picture_seeds(config, reference))
    ]


def gallery_rows(evidence: Evidence, verdict: Verdict) -> list[GalleryRow]:
    """Returns the rows of the picture grid."""
    rows = []
    for r, reference in enumerate(evidence.references):
        others = [p for p in evidence.photos if p.person == reference.person and p.key != reference.key]
        rows.append(
            GalleryRow(
                reference=reference,
                other_uint8=others[-1].target_uint8 if others else None,
                pictures=evidence.generated[r],
                similarities=verdict.similarity_RK[r],
                found=verdict.found_RK[r],
            )
        )
    return rows
