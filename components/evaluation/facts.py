"""What the report says beside its tables: settings, one row a picture, the rows of the picture grid."""

from pathlib import Path
from typing import Any

from components.core import Checkpoint, EvaluationReport
from components.evaluation.config import EvaluationConfig
from components.evaluation.generate import picture_seeds
from components.evaluation.panel import Evidence, Verdict
from components.evaluation.report import GalleryRow, write_html, write_json, write_sheet
from components.evaluation.scores import identity_figures


def write_report(
    config: EvaluationConfig,
    evidence: Evidence,
    verdict: Verdict,
    checkpoint: Checkpoint,
    folder: Path,
    model_base: str = "",
) -> EvaluationReport:
    """Writes `report.json`, `report.html` and a contact sheet, `faces.png`; returns the record."""
    facts = report_facts(config, evidence, verdict, checkpoint, model_base)
    write_json(folder / "report.json", facts, verdict.tables, picture_rows(config, evidence, verdict))
    gallery = gallery_rows(evidence, verdict)
    write_html(folder / "report.html", facts, verdict.tables, gallery, evidence.base, config.gallery_people)
    write_sheet(folder / "faces.png", gallery)
    by_judge = {table.judge: identity_figures(table) for table in verdict.tables}
    return EvaluationReport(
        count_in=len(evidence.generated),
        count_out=verdict.similarity_RK.size,
        report_json=str(folder / "report.json"),
        report_html=str(folder / "report.html"),
        people=facts["people"],
        identity=by_judge["identity"],
        colour=by_judge.get("colour"),
    )


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
        "copying": verdict.copying,
        "checkpoint": checkpoint.model_dump(
            mode="json", include={"run_name", "step", "fingerprint", "mlflow_run_id"}
        ),
        "config": config.model_dump(mode="json"),
        "details": {"split": config.split, "base model": model_base, "seed": config.seed, **dials},
    }


def picture_rows(config: EvaluationConfig, evidence: Evidence, verdict: Verdict) -> list[dict[str, Any]]:
    """Returns one row a generated picture: person, key, seed, similarity, face found."""
    return [
        {
            "person": reference.person,
            "group": reference.group,
            "gender": reference.gender,
            "reference": reference.key,
            "seed": seed,
            "similarity": round(float(verdict.similarity_RK[r, k]), 6),
            "face_found": bool(verdict.found_RK[r, k]),
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
