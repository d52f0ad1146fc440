"""Commands about the registered model: promote, rollback, history."""

import argparse
from typing import Any

from flows.commands.options import FAILED, OK, add_command, add_root, root_of


def add_commands(commands: Any) -> None:
    """Adds this file's commands to the parser."""
    _add_promote(commands)
    _add_rollback(commands)
    _add_history(commands)


def _add_promote(commands: Any) -> None:
    details = "Prints each reason, failed ones first; 1 if it does not become champion."
    command = add_command(
        commands, "promote", _promote, "let the gate decide about an evaluated run", details
    )
    command.add_argument("name", help="name of the run")
    command.add_argument("--root", default="runs", help="folder of all runs (default: %(default)s)")
    command.add_argument("--store", help="URL of the store that stands for the root, e.g. s3://bucket/runs")
    command.add_argument("--dry-run", action="store_true", help="show the decision and change nothing")
    command.add_argument(
        "--by-hand", metavar="REASON",
        help="promote what the gate would only register; the reason and your name are kept",
    )  # fmt: skip


def _promote(options: argparse.Namespace) -> int:
    from flows.promotion import promote_run

    if options.by_hand is not None and not options.by_hand.strip():
        raise ValueError("--by-hand needs a reason: it is kept with the model")
    promotion = promote_run(
        options.name, options.root, store=options.store, dry_run=options.dry_run, by_hand=options.by_hand
    )
    for reason in promotion.reasons:
        print(f"  {reason}")
    verb = "would be" if options.dry_run else "is"
    print(f"{options.name} {verb} {promotion.decision}: {promotion.model_uri or 'nothing was changed'}")
    return OK if promotion.decision == "promoted" else FAILED


def _add_registry_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--profile", default="portraits", help="whose registry settings (default: %(default)s)"
    )
    add_root(command)


def _add_rollback(commands: Any) -> None:
    details = "The version that loses the alias is never promoted by the gate again."
    command = add_command(
        commands, "rollback", _rollback, "make the champion before the champion again", details
    )
    _add_registry_options(command)
    command.add_argument("--reason", required=True, help="why; kept with the model")
    command.add_argument("--to", metavar="VERSION", help="another version than the one that was replaced")


def _rollback(options: argparse.Namespace) -> int:
    from flows.promotion import roll_back_champion

    before, after = roll_back_champion(options.profile, root_of(options), options.reason, options.to)
    print(f"champion: version {before} -> version {after}")
    return OK


def _add_history(commands: Any) -> None:
    command = add_command(
        commands, "history", _history, "who promoted, registered or rolled back what, when and why"
    )
    _add_registry_options(command)


def _history(options: argparse.Namespace) -> int:
    from flows.promotion import history

    entries = history(options.profile, root_of(options))
    for entry in entries:
        print(
            f"{entry.at[:19]}  {entry.who}: version {entry.version} {entry.action}; champion {entry.champion}"
        )
        for reason in entry.reasons:
            print(f"      {reason}")
    if not entries:
        print("nothing was decided yet")
    return OK
