"""The `photoverse` command. Each subcommand imports what it needs when it runs: `--help` is quick."""

import argparse
import sys
import traceback
from pathlib import Path

from flows.commands import data, machine, models, people, pictures, plan, runs, serving
from flows.commands.options import FAILED, INTERRUPTED, OK, REFUSED
from flows.environment import PROJECT, prepare_environment


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0 well, 1 failed, 2 refused (the caller can mend it), 130 interrupted."""
    options = build_parser().parse_args(arguments)
    prepare_environment()
    try:
        return options.run(options) or OK
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where an error can be put in words
        return _report(error)


def _report(error: Exception) -> int:
    """Says what went wrong: one line for what the caller can mend, everything for what we must mend."""
    if _is_refusal(error):
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    from flows.runners import StageFailed

    if not isinstance(error, StageFailed):
        traceback.print_exception(error)
    print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    return FAILED


def _is_refusal(error: Exception) -> bool:
    """Whether our own code refused a value, rather than some library tripping over one of ours."""
    if not isinstance(error, ValueError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = Path(frame.f_code.co_filename)
    return any(file.is_relative_to(PROJECT / part) for part in ("components", "flows"))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="photoverse", description="Puts a person, known from one photo, into any picture."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for subject in (runs, plan, models, pictures, people, serving, machine, data):
        subject.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
