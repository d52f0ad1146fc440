"""Commands about people's rights: cards, forget."""

import argparse
from pathlib import Path
from typing import Any

from flows.commands.options import FAILED, OK, add_command


def add_commands(commands: Any) -> None:
    """Adds this file's commands to the parser."""
    _add_cards(commands)
    _add_forget(commands)


def _add_cards(commands: Any) -> None:
    details = "Who agreed to what and when, and until when each card is kept. Expired cards are removed."
    command = add_command(commands, "cards", _cards, "list the identity cards that are kept", details)
    command.add_argument("--person", help="only this person's")
    _add_places(command)


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", default="runs", help="folder of all runs (default: %(default)s)")
    command.add_argument("--store", help="URL of the store that stands for the root, e.g. s3://bucket/runs")


def _cards(options: argparse.Namespace) -> int:
    from components.inference import CardStore
    from flows.stage_store import PEOPLE, at_hand

    with at_hand(options.store, options.root) as root:
        store = CardStore(root / PEOPLE)
        for gone in store.sweep():
            print(f"{gone.id}  {gone.consent.person}: expired on {gone.expires:%Y-%m-%d}, removed")
        kept = [one for one in store.all() if options.person in (None, one.consent.person)]
    for one in kept:
        until = f"until {one.expires:%Y-%m-%d}" if one.expires else "until forgotten"
        print(f"{one.id}  {one.consent.person}: {one.consent.purpose} (given {one.consent.given}), {until}")
    print(f"{len(kept)} cards in {options.store or store.cards}")
    return OK


def _add_forget(commands: Any) -> None:
    details = (
        "Removes the person's cards (kept ones, and files below the folders), the pictures and thumbnails of "
        "all batches and their summaries in Prefect, the samples in prepared shards with embeddings and "
        "pages, and the pictures of evaluations; lists what went, looks again, and ends with 1 if any is "
        "left. Consents given until today are withdrawn, and photos of the person are not prepared again: "
        "neither a nightly batch nor a training run brings the person back. What a model learned stays in it."
    )
    command = add_command(
        commands, "forget", _forget, "remove everything that is kept of a person, with proof", details
    )
    command.add_argument("--person", required=True, help="the ID that the consents name")
    command.add_argument(
        "--also",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="more folders to look in",
    )
    _add_places(command)


def _forget(options: argparse.Namespace) -> int:
    from flows.forgetting import forget_everywhere

    for folder in options.also:
        if not folder.is_dir():
            raise ValueError(f"--also: there is no folder {folder}")
    proof = forget_everywhere(options.person, options.root, options.also, options.store)
    for line in proof.removed:
        print(f"removed {line}")
    for line in proof.left:
        print(f"STILL THERE {line}")
    print(
        f"{proof.files} files and samples of {proof.person} removed, {len(proof.left)} left; "
        "the audit log says so"
    )
    return FAILED if proof.left else OK
