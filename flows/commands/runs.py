"""Commands that run flows and stages: demo, train, ablate, stage."""

import argparse
import json
import signal
from pathlib import Path
from typing import Any

from flows.commands.options import OK, add_command, add_run_options, parse_settings, root_of
from flows.environment import PROJECT


def add_commands(commands: Any) -> None:
    """Adds this file's commands to the parser."""
    _add_demo(commands)
    _add_train(commands)
    _add_ablate(commands)
    _add_stage(commands)


def _end_in_order() -> None:
    """Lets Ctrl-C and SIGTERM end a flow with its stage and its server, in a shell's background too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def _add_demo(commands: Any) -> None:
    details = "A second run keeps what is done; --fresh starts from nothing."
    command = add_command(
        commands, "demo", _demo, "from drawn photos to personalized pictures on this machine", details
    )
    add_run_options(command, "demo")
    command.add_argument("--fresh", action="store_true", help="remove the run and start anew")


def _demo(options: argparse.Namespace) -> int:
    from flows.demo import run_demo

    _end_in_order()
    if options.fresh:
        _remove_run(root_of(options), options.name)
    run_demo(options.profile, options.name, root_of(options), parse_settings(options.settings))
    return OK


def _remove_run(root: str, name: str) -> None:
    import shutil

    from components.core import inside

    shutil.rmtree(inside(PROJECT / root, name), ignore_errors=True)


def _add_train(commands: Any) -> None:
    command = add_command(
        commands, "train", _train, "photoverse/train in this terminal, without a server of your own"
    )
    add_run_options(command, None)
    command.add_argument("--resume", action="store_true", help="go on with a run that exists")


def _train(options: argparse.Namespace) -> int:
    from flows.demo import quiet_prefect
    from flows.progress import listening
    from flows.terminal import Board

    _end_in_order()
    quiet_prefect()
    from flows.pipeline import train

    settings = {"root": root_of(options)} | parse_settings(options.settings)
    with Board() as board, listening(board):
        records = train(profile=options.profile, name=options.name, overrides=settings, resume=options.resume)
    print(json.dumps(records["promote"], indent=2))
    return OK


def _add_ablate(commands: Any) -> None:
    from components.evaluation import AblationConfig

    known = ", ".join(AblationConfig().variants)
    command = add_command(
        commands, "ablate", _ablate, "the method with one part left out at a time, in one table",
        "Each variant is a run of its own, NAME.VARIANT; --resume trains no finished one again.",
    )  # fmt: skip
    add_run_options(command, "ablation")
    command.add_argument("--variants", nargs="+", help=f"some of: {known} (default: the profile's, else all)")
    command.add_argument("--resume", action="store_true", help="go on with an ablation that exists")
    command.add_argument("--side-by-side", type=int, help="variants that run at once (default: 1 here)")


def _ablate(options: argparse.Namespace) -> int:
    from flows.demo import quiet_prefect
    from flows.progress import listening
    from flows.terminal import Board

    if options.side_by_side is not None and options.side_by_side < 1:
        raise ValueError(f"--side-by-side is 1 or more, found {options.side_by_side}")
    _end_in_order()
    quiet_prefect()
    from flows.ablate import ablate

    settings = {"root": root_of(options)} | parse_settings(options.settings)
    with Board() as board, listening(board):
        record = ablate(
            profile=options.profile, name=options.name, variants=options.variants, overrides=settings,
            resume=options.resume, side_by_side=options.side_by_side,
        )  # fmt: skip
    print((PROJECT / record["folder"] / "ablation.md").read_text(encoding="utf-8"))
    print(f"table with pictures: {record['report_html']}")
    return OK


def _add_stage(commands: Any) -> None:
    details = (
        "Reads the records of earlier stages from the folder of --out. Does nothing if its work is done."
    )
    command = add_command(commands, "stage", _stage, "run one stage in this process", details)
    command.add_argument("name", help="portraits, prepare, train, evaluate, promote or personalize")
    command.add_argument("--config", type=Path, required=True, help="the run's config.yaml")
    command.add_argument(
        "--out", type=Path, required=True, help="file of the record, e.g. runs/x/records/train.json"
    )
    command.add_argument(
        "--store", help="URL of the store that nodes share instead of a root (s3://bucket/runs)"
    )
    command.add_argument("--root", help="with --store: this node's folder that stands for it")


def _bring_config(options: argparse.Namespace) -> None:
    """Brings the run's config to a node that has not the files of the one that started the stage."""
    from flows.config import shared_store

    if (options.store is None) != (options.root is None):
        raise ValueError("--store and --root go together: a URL, and the folder here that stands for it")
    if store := shared_store(options.store, options.root or ""):
        store.fetch_file(options.config.absolute())


def _stage(options: argparse.Namespace) -> int:
    from flows.processes import hold_lifeline

    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
    hold_lifeline()
    from components.core import setup_logging
    from flows.config import load_config
    from flows.stage_table import stage_named
    from flows.stages import execute

    setup_logging()
    stage_named(options.name)
    _bring_config(options)
    config, out = load_config(options.config), options.out.resolve()
    execute(options.name, config, out)
    return OK
