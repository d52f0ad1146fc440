"""What the commands share: how one is added, and the options of a run."""

import argparse
from typing import Any

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def add_command(
    commands: Any, name: str, run: Any, summary: str, details: str = ""
) -> argparse.ArgumentParser:
    """Adds a command that calls `run(options)`; its summary stands in the list of commands."""
    command = commands.add_parser(name, help=summary, description=f"{summary}. {details}".strip())
    command.set_defaults(run=run)
    return command


def add_run_options(command: argparse.ArgumentParser, name: str | None) -> None:
    """Adds the options that every run has: profile, name, root and settings."""
    command.add_argument(
        "--profile", default="portraits", help="name in infra/profiles or a YAML file (default: %(default)s)"
    )
    command.add_argument("--name", default=name, help="name of the run (default: %(default)s)")
    add_root(command)
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting over the profile's, e.g. --set train.steps=300; may be given several times",
    )  # fmt: skip


def add_root(command: argparse.ArgumentParser) -> None:
    """Adds --root to a command that has a --profile; `root_of` reads it."""
    command.add_argument("--root", help="folder of all runs (default: the profile's root, else runs)")


def root_of(options: argparse.Namespace) -> str:
    """Returns the folder of all runs: that of --root, else the profile's."""
    from flows.config import resolve

    return options.root or resolve(options.profile, name="root").root


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Returns nested settings from `key.key=value` words; values are read as YAML.

    Raises:
        ValueError: A word has no `=`.
    """
    import yaml

    from components.core import deep_merge

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {pair!r}: expected KEY=VALUE, e.g. train.steps=300")
        nested: Any = yaml.safe_load(value)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        settings = deep_merge(settings, nested)
    return settings
