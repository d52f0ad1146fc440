"""Commands about pictures: personalize, export, inspect, ui."""

import argparse
from pathlib import Path
from typing import Any

from flows.commands.options import OK, add_command, add_root, parse_settings, root_of
from flows.dials import DIALS, parse_date, read_consent


def add_commands(commands: Any) -> None:
    """Adds this file's commands to the parser."""
    _add_personalize(commands)
    _add_export(commands)
    _add_inspect(commands)
    _add_ui(commands)


def _add_subject(command: argparse.ArgumentParser) -> None:
    """Options that say who is meant, and with which model."""
    command.add_argument(
        "--photo", type=Path, nargs="+", default=[], help="photos of the person, one or several"
    )
    command.add_argument("--card", type=Path, nargs="+", default=[], help="identity cards instead of photos")
    command.add_argument("--person", help="ID of the person in the photos; `photoverse forget` finds it")
    command.add_argument("--consent", default="not stated", help="what the person in the photos agreed to")
    command.add_argument("--consent-date", help="when, e.g. 2026-05-01 (default: today)")
    command.add_argument("--model", help="adapter.safetensors or a model URI (default: the champion)")
    command.add_argument("--profile", default="portraits", help="(default: %(default)s)")
    add_root(command)


def _subject(options: argparse.Namespace, expires: str | None = None) -> Any:
    from flows.single import Subject

    return Subject(
        photos=tuple(photo.resolve() for photo in options.photo),
        cards=tuple(card.resolve() for card in options.card),
        consent=read_consent(options.person, options.consent, options.consent_date),
        expires=parse_date(expires),
        model=options.model,
        profile=options.profile,
        root=root_of(options),
    )


def _add_personalize(commands: Any) -> None:
    details = "Each picture carries in its metadata the recipe it was made by."
    command = add_command(commands, "personalize", _personalize, "a person, a prompt, pictures", details)
    _add_subject(command)
    command.add_argument(
        "--prompt", required=True,
        help='what to draw, e.g. "S* as an astronaut"; S* is the person, S1*, S2*... those of several cards',
    )  # fmt: skip
    command.add_argument("--negative-prompt", default="", help="what not to draw")
    command.add_argument("--out", type=Path, default=Path("out"), help="folder (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of the first picture (default: %(default)s)")
    command.add_argument("--num-images", type=int, default=1, help="how many (default: %(default)s)")
    command.add_argument("--save-card", type=Path, help="write the person's identity card to this file")
    command.add_argument(
        "--keep-card", action="store_true", help="keep the card among the team's; prints its ID for requests"
    )
    command.add_argument("--store", help="with --keep-card: URL of the team's store, e.g. s3://bucket/runs")
    command.add_argument("--kind", choices=("png", "jpg"), default="png", help="(default: %(default)s)")
    command.add_argument("--expires", help="date from when on that card is refused, e.g. 2031-12-31")
    dials = command.add_argument_group("dials", "over those of the profile")
    for name, read, words in DIALS:
        dials.add_argument(f"--{name.replace('_', '-')}", type=read, help=words)


def _personalize(options: argparse.Namespace) -> int:
    from flows.single import Wish, personalize_one

    wish = Wish(
        subject=_subject(options, options.expires),
        prompt=options.prompt,
        out=options.out.resolve(),
        negative_prompt=options.negative_prompt,
        seed=options.seed,
        num_images=options.num_images,
        dials={name: getattr(options, name) for name, *_ in DIALS if getattr(options, name) is not None},
        save_card=options.save_card and options.save_card.resolve(),
        keep_card=options.keep_card,
        store=options.store,
        kind=options.kind,
    )
    for line in personalize_one(wish):
        print(line)
    return OK


def _add_export(commands: Any) -> None:
    details = "Writes a LoRA, a textual inversion and an IP-Adapter of one person, with a README.txt."
    command = add_command(
        commands, "export", _export, "a person as files that stock diffusers loads", details
    )
    _add_subject(command)
    command.add_argument("--out", type=Path, default=Path("export"), help="folder (default: %(default)s)")
    command.add_argument("--m", type=int, help="how many pseudo-words (default: all)")


def _export(options: argparse.Namespace) -> int:
    from flows.single import export_one

    for file in export_one(_subject(options), options.out.resolve(), options.m):
        print(file)
    return OK


def _add_inspect(commands: Any) -> None:
    details = "Reads recipe and digital source type, looks for the mark in the pixels, checks the signature."
    command = add_command(commands, "inspect", _inspect, "what a picture says of its making", details)
    command.add_argument("picture", type=Path, help="a PNG or JPEG file")
    command.add_argument("--key", help="of the mark, if it is your own (default: the one in the source)")
    command.add_argument("--json", action="store_true", help="for programs")


def _inspect(options: argparse.Namespace) -> int:
    from flows.inspection import inspect_one

    print(inspect_one(options.picture, options.key, options.json))
    return OK


def _add_ui(commands: Any) -> None:
    details = "Starts on the champion, or on --model. Ends with Ctrl-C."
    command = add_command(commands, "ui", _ui, "a page to play with, in the browser", details)
    command.add_argument("--model", help="adapter.safetensors or a model URI (default: the champion)")
    command.add_argument("--profile", default="portraits", help="(default: %(default)s)")
    add_root(command)
    command.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    command.add_argument("--port", type=int, help="(default: a free one from 7860 on)")
    command.add_argument(
        "--auth",
        metavar="NAME:PASSWORD",
        help="who may come in (beyond this machine one is made)",
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting over the profile's, e.g. --set batch.dials.num_inference_steps=30",
    )  # fmt: skip


def _ui(options: argparse.Namespace) -> int:
    from flows.page import open_page

    open_page(
        model=options.model,
        profile=options.profile,
        settings={"root": root_of(options)} | parse_settings(options.settings),
        host=options.host,
        port=options.port,
        auth=options.auth,
    )
    return OK
