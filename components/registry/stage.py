"""The promote stage: the gate decides, MLflow keeps the version and the alias, and why."""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core import (
    Checkpoint,
    EvaluationReport,
    Promotion,
    RuntimeConfig,
    ShardManifest,
    TrackingConfig,
    fingerprint,
)
from components.registry.audit import Entry, now, whoami, write_entry
from components.registry.config import RegistryConfig
from components.registry.gate import ChampionFigures, Decision, decide
from components.registry.licences import weight_licences
from components.registry.model_card import write_model_card
from components.registry.package import package_fingerprint, write_package
from components.registry.publish import publish
from components.registry.store import FINGERPRINT_TAG, REPLACED_TAG, ROLLED_BACK_TAG, Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from components.face import FaceConfig
    from components.model import ModelConfig

logger = logging.getLogger(__name__)

IDENTITY_TAG, MEASURED_TAG = "photoverse.identity", "photoverse.measured_on"
# What an evaluation's figures depend on beside the pictures; a change makes two evaluations not comparable.
MEASURED_SETTINGS = (
    "split",
    "prompt",
    "base_prompt",
    "negative_prompt",
    "dials",
    "seed",
    "pictures_per_reference",
)


def promote(
    *,
    config: RegistryConfig,
    model: "ModelConfig",
    face: "FaceConfig",
    runtime: RuntimeConfig,
    tracking: TrackingConfig,
    report: EvaluationReport,
    checkpoint: Checkpoint,
    manifest: ShardManifest,
    folder: Path | None = None,
    dry_run: bool = False,
    by_hand: str | None = None,
    who: str | None = None,
) -> Promotion:
    """Registers the adapter, and makes it champion if the gate says so.

    The same adapter with the same settings is registered once: a rerun finds its version.

    Args:
        config: Name, aliases, thresholds, limits.
        model: The model that the adapter was trained on.
        face: Face settings of the served model.
        runtime: Not used; every stage is given it.
        tracking: MLflow.
        report: The candidate's evaluation.
        checkpoint: The candidate.
        manifest: The data that it learned from.
        folder: Where the package is put together; None takes a temporary one.
        dry_run: Decide and say why, and change nothing.
        by_hand: The reason of a person who promotes what the gate would only register; what it refuses stays
            refused.
        who: Who decides, for the audit; None takes user and machine.

    Raises:
        ValueError: The adapter's files are missing.
    """
    store = Store(tracking, config.model_name)
    facts = json.loads(Path(report.report_json).read_text(encoding="utf-8"))
    measured = measured_on(facts)
    decision = decide(
        report,
        checkpoint,
        champion_figures(store, config.alias),
        config.thresholds,
        measured_on=measured,
        licences=manifest.licences,
        weight_licences=weight_licences(config, model.base),
    )
    mark = package_fingerprint(config, model, face, checkpoint)
    found = store.with_fingerprint(mark)
    decision = final_decision(decision, found, by_hand, who or whoami())
    for reason in decision.reasons:
        logger.info("gate: %s", reason)
    if decision.decision == "refused" or dry_run:
        return _record(config, report, decision, None)
    number = str(found.version) if found else None
    if number is None:
        base = Path(model.base).name if Path(model.base).is_dir() else model.base
        card = write_model_card(
            config.model_name,
            base,
            checkpoint,
            report,
            manifest,
            decision,
            weight_licences=weight_licences(config, model.base),
            facts=facts,
        )
        with _Workshop(folder) as place:
            package = write_package(
                place / "package",
                config,
                model,
                face,
                checkpoint,
                report,
                facts["config"].get("dials", {}),
                card,
            )
            number = publish(store, package, checkpoint, {FINGERPRINT_TAG: mark})
        store.describe(number, card)
    tell(store, config, number, decision, report, measured, who or whoami(), bool(by_hand))
    return _record(config, report, decision, number)


def final_decision(
    decision: Decision, found: "ModelVersion | None", by_hand: str | None, who: str
) -> Decision:
    """Returns the gate's decision with what people have said: rolled back before, or promoted by hand.

    Args:
        decision: The gate's.
        found: The version of these very weights, where they are registered already.
        by_hand: A person's reason to promote.
        who: That person.
    """
    if by_hand and decision.decision == "registered":
        return Decision("promoted", (f"by hand: {by_hand} ({who})", *decision.reasons), decision.failed)
    undone = found.tags.get(ROLLED_BACK_TAG) if found else None
    if found and undone and decision.decision == "promoted" and not by_hand:
        reason = f"failed: version {found.version} was rolled back ({undone}): promote it by hand"
        return Decision("registered", (reason, *decision.reasons), 1)
    return decision


def measured_on(facts: dict[str, Any]) -> str:
    """Returns the identity of the photos, judges and settings of an evaluation, from its `report.json`."""
    settings = {name: facts["config"].get(name) for name in MEASURED_SETTINGS}
    references = sorted({row["reference"] for row in facts["pictures"]})
    return fingerprint(settings, references, facts.get("judge_marks", {}))


def champion_figures(store: Store, alias: str) -> ChampionFigures | None:
    """Returns what is known of the model in use; None if there is none, or another tool registered it."""
    champion = store.by_alias(alias)
    if champion is None or IDENTITY_TAG not in champion.tags:
        return None
    values = {
        "version": str(champion.version),
        "measured_on": champion.tags.get(MEASURED_TAG, ""),
        "identity": json.loads(champion.tags[IDENTITY_TAG]),
    }
    return ChampionFigures.parse(values, source=f"tags of {store.name} version {champion.version}")


def tell(
    store: Store,
    config: RegistryConfig,
    number: str,
    decision: Decision,
    report: EvaluationReport,
    measured: str,
    who: str,
    by_hand: bool = False,
) -> None:
    """Writes figures, reasons and who decided to the version, moves the aliases, and adds to the audit."""
    before = store.by_alias(config.alias)
    tags = {
        IDENTITY_TAG: json.dumps(report.identity.model_dump(mode="json")),
        MEASURED_TAG: measured,
        "photoverse.decision": decision.decision,
        "photoverse.reasons": "\n".join(decision.reasons)[:4900],
        "photoverse.decided_at": now(),
        "photoverse.decided_by": who,
    }
    if decision.decision == "promoted":
        if before is not None and str(before.version) != number:
            tags[REPLACED_TAG] = str(before.version)
        store.tag(number, tags)
        store.set_alias(config.alias, number)
        challenger = store.by_alias(config.challenger_alias)
        if challenger is not None and str(challenger.version) == number:
            store.drop_alias(config.challenger_alias)
    else:
        store.tag(number, tags)
        if before is None or str(before.version) != number:
            store.set_alias(config.challenger_alias, number)
    champion = store.by_alias(config.alias)
    entry = Entry(
        at=tags["photoverse.decided_at"],
        who=who,
        action="promoted by hand"
        if by_hand
        else "promoted"
        if decision.decision == "promoted"
        else "registered",
        version=number,
        champion=str(champion.version) if champion else None,
        before=str(before.version) if before else None,
        reasons=decision.reasons,
    )
    write_entry(store, entry)


class _Workshop:
    """The folder where a package is put together; what was made there goes when the block ends."""

    def __init__(self, folder: Path | None) -> None:
        self._above = folder

    def __enter__(self) -> Path:
        if self._above is not None:
            self._above.mkdir(parents=True, exist_ok=True)
        self._place = Path(tempfile.mkdtemp(prefix="package-", dir=self._above))
        return self._place

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self._place, ignore_errors=True)


def _record(
    config: RegistryConfig, report: EvaluationReport, decision: Decision, number: str | None
) -> Promotion:
    return Promotion(
        count_in=1,
        count_out=int(number is not None),
        decision=decision.decision,
        reasons=decision.reasons,
        model_name=config.model_name,
        version=number,
        model_uri=f"models:/{config.model_name}/{number}" if number else None,
    )
