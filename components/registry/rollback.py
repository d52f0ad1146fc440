"""Back to the champion before, in one step, with the reason kept."""

from components.registry.audit import Entry, now, whoami, write_entry
from components.registry.config import RegistryConfig
from components.registry.store import REPLACED_TAG, ROLLED_BACK_TAG, Store


def roll_back(
    store: Store, config: RegistryConfig, *, reason: str, to: str | None = None, who: str | None = None
) -> tuple[str, str]:
    """Points the champion's alias back; the version that loses it is never promoted by the gate again.

    Args:
        store: The registry.
        config: Names of the aliases.
        reason: Why; kept in the audit and on the version.
        to: Version that becomes champion; None takes the one that the champion replaced.
        who: Who asks for it; None takes user and machine.

    Returns:
        The version that was champion, and the one that is now.

    Raises:
        ValueError: There is no champion, it replaced nobody, there is no such version, or no reason is given.
    """
    if not reason.strip():
        raise ValueError("a rollback needs a reason: it is kept with the model")
    current = store.by_alias(config.alias)
    if current is None:
        raise ValueError(f"model {store.name!r} has no {config.alias}: there is nothing to roll back")
    number = str(current.version)
    target = to or current.tags.get(REPLACED_TAG)
    if not target:
        raise ValueError(f"version {number} replaced no other {config.alias}: say which version with --to")
    target = str(store.version(target).version)
    if target == number:
        raise ValueError(f"version {number} is the {config.alias} already")
    at = now()
    store.tag(number, {ROLLED_BACK_TAG: f"{at}: {reason}"[:4900]})
    store.set_alias(config.alias, target)
    challenger = store.by_alias(config.challenger_alias)
    if challenger is not None and str(challenger.version) == target:
        store.drop_alias(config.challenger_alias)
    entry = Entry(
        at=at, who=who or whoami(), action="rolled back", version=number, champion=target, before=number,
        reasons=(reason,),
    )  # fmt: skip
    write_entry(store, entry)
    return number, target
