"""Commands about this machine: services, doctor."""

import argparse
from typing import Any

from flows.commands.options import FAILED, OK, add_command


def add_commands(commands: Any) -> None:
    """Adds this file's commands to the parser."""
    _add_services(commands)
    _add_doctor(commands)


def _add_services(commands: Any) -> None:
    command = add_command(
        commands, "services", _services, "Prefect's server and worker and MLflow's page, until Ctrl-C"
    )
    command.add_argument(
        "--prefect-port", type=int, default=4200, help="(default: %(default)s, or a free one)"
    )
    command.add_argument(
        "--mlflow-port", type=int, default=5000, help="(default: %(default)s, or a free one)"
    )
    command.add_argument("--root", default="runs", help="folder of all runs (default: %(default)s)")


def _services(options: argparse.Namespace) -> int:
    from flows.services import serve

    return serve(prefect_port=options.prefect_port, mlflow_port=options.mlflow_port, root=options.root)


def _add_doctor(commands: Any) -> None:
    command = add_command(
        commands, "doctor", _doctor, "look at machine and installation; each finding with its mend"
    )
    command.add_argument(
        "--profile", default="portraits", help="profile whose weights to look for (default: %(default)s)"
    )


def _doctor(options: argparse.Namespace) -> int:
    from flows.doctor import examine, say

    findings = examine(options.profile)
    print(say(findings))
    return FAILED if any(finding.mend for finding in findings) else OK
