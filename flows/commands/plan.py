"""The command that plans a training run: hours and money before it starts."""

import argparse
from typing import Any

from flows.commands.options import OK, add_command, add_run_options, parse_settings, root_of
from flows.environment import PROJECT


def add_commands(commands: Any) -> None:
    """Adds this file's command to the parser."""
    details = (
        "The throughput is given (--samples-per-second), measured by an earlier run (--from-run; a hundred "
        "steps on one GPU will do), or else the profile's own assumption."
    )
    command = add_command(
        commands, "plan", _plan, "hours and money of a training run, before it starts", details
    )
    add_run_options(command, None)
    command.add_argument("--gpus", type=int, help="number of GPUs (default: the profile's train.num_workers)")
    command.add_argument("--price", type=float, help="price of one GPU for an hour, in any currency")
    command.add_argument(
        "--samples-per-second", type=float, metavar="N", help="measured on one GPU, e.g. by train's log"
    )
    command.add_argument("--from-run", metavar="NAME", help="take the throughput from the log of this run")
    command.add_argument(
        "--scaling", type=float, default=0.95, metavar="SHARE",
        help="share of its throughput that a GPU keeps beside others (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--overhead", type=float, default=0.05, metavar="SHARE",
        help="starts, checkpoints, validation over the steps' time (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--samples", type=int, help="training photos, to tell the epochs")


def _plan(options: argparse.Namespace) -> int:
    from components.training import describe_plan, plan_run
    from flows.config import resolve

    train = resolve(options.profile, parse_settings(options.settings), name=options.name or "plan").train
    rate, source = _throughput(options, train.assumed_samples_per_second)
    plan = plan_run(
        train,
        gpus=train.num_workers if options.gpus is None else options.gpus,
        samples_per_second_per_gpu=rate,
        price_per_gpu_hour=train.price_per_worker_hour if options.price is None else options.price,
        scaling=options.scaling,
        overhead=options.overhead,
        dataset_samples=options.samples,
    )
    print(describe_plan(plan, source))
    return OK


def _throughput(options: argparse.Namespace, assumed: float | None) -> tuple[float, str]:
    """Returns samples a second of one GPU and where the figure comes from.

    Raises:
        ValueError: Nothing tells it, or the run that should has no log.
    """
    if options.samples_per_second is not None:
        return options.samples_per_second, f"{options.samples_per_second:g} of one GPU, as given"
    if options.from_run is not None:
        rate = _measured_by(root_of(options), options.from_run)
        return rate, f"{rate:.2f} of one worker, measured by run {options.from_run}"
    if assumed is None:
        raise ValueError(
            f"profile {options.profile!r} assumes no throughput: give --samples-per-second, or --from-run "
            "with a run that has measured it"
        )
    mend = "give --samples-per-second or --from-run"
    return assumed, f"{assumed:g} of one GPU ASSUMED by the profile, not measured: {mend}"


def _measured_by(root: str, name: str) -> float:
    from components.core import inside
    from components.training import measured_throughput, read_history
    from flows.config import load_config

    folder = inside(PROJECT / root, name)
    logs = sorted(folder.rglob("metrics.jsonl"))
    if not logs:
        raise ValueError(f"run {name!r} in {root} has no training log (no metrics.jsonl below {folder})")
    return measured_throughput(
        read_history(logs[0].parent), load_config(folder / "config.yaml").train.num_workers
    )
