"""Moves of the champion by hand: look at the gate, promote a run, go back, and read who did what."""

from components.core import Promotion
from components.registry import Entry, Store, read_entries, roll_back
from flows.config import PipelineConfig, anchored, reopen_run, resolve
from flows.environment import PROJECT
from flows.stage_store import bring_records, send_file
from flows.stage_work import promote_model
from flows.stages import bring_inputs


def promote_run(
    name: str, root: str, *, store: str | None = None, dry_run: bool = False, by_hand: str | None = None
) -> Promotion:
    """Lets the gate decide about a trained and evaluated run.

    Args:
        name: Of the run.
        root: Folder of all runs.
        store: URL of the store that stands for it.
        dry_run: Say what the gate would do and change nothing.
        by_hand: A person's reason to promote what the gate would only register.

    Raises:
        ValueError: There is no such run, or it was not evaluated yet.
    """
    config = reopen_run(name, root, {"store": store} if store else None)
    records = PROJECT / config.folder / "records"
    bring_records(config, records)
    bring_inputs("promote", config, records)
    promotion = promote_model(anchored(config), records.parent, records, dry_run=dry_run, by_hand=by_hand)
    if not dry_run:
        promotion.save(records / "promote.json")
        send_file(config, records / "promote.json")
    return promotion


def registry_of(profile: str, root: str) -> tuple[Store, PipelineConfig]:
    """Returns the registry of a profile's runs."""
    config = anchored(resolve(profile, {"root": root}, name="registry"))
    return Store(config.tracking, config.registry.model_name), config


def roll_back_champion(profile: str, root: str, reason: str, to: str | None = None) -> tuple[str, str]:
    """Makes the champion before the champion again; returns both versions.

    Raises:
        ValueError: As `components.registry.roll_back`.
    """
    store, config = registry_of(profile, root)
    return roll_back(store, config.registry, reason=reason, to=to)


def history(profile: str, root: str) -> list[Entry]:
    """Returns who decided what about the registered model, oldest first."""
    store, _ = registry_of(profile, root)
    return read_entries(store)
