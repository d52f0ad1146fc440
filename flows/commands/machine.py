"""Commands about machines: services, deploy, backup, restore, manifests, scale, doctor."""

import argparse
from pathlib import Path
from typing import Any

from flows.commands.options import FAILED, OK, add_command, parse_settings
from flows.environment import PROJECT


def add_commands(commands: Any) -> None:
    """Adds this file's commands to the parser."""
    _add_services(commands)
    _add_deploy(commands)
    _add_backup(commands)
    _add_manifests(commands)
    _add_scale(commands)
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


def _add_deploy(commands: Any) -> None:
    details = (
        "Asks the server at PREFECT_API_URL; may be repeated. Options become the deployments' parameters."
    )
    command = add_command(
        commands, "deploy", _deploy, "work pool, deployments and the automation for dead runs", details
    )
    command.add_argument("--pool", default="photoverse", help="work pool (default: %(default)s)")
    command.add_argument(
        "--template", help="base job template of the pool: it becomes one of kind kubernetes"
    )
    command.add_argument("--root", help="folder of all runs, the same path on every machine")
    command.add_argument("--ray-address", help="job server of a Ray cluster: stages run there")
    command.add_argument("--mlflow", help="MLflow's address: runs and models are kept there")
    command.add_argument("--store", help="URL of a store (s3://bucket/runs) for machines that share no root")


def _deploy(options: argparse.Namespace) -> int:
    from flows.deploy import deploy, parameters

    given = parameters(
        root=options.root, ray_address=options.ray_address, mlflow=options.mlflow, store=options.store
    )
    print(deploy(options.pool, given, options.template))
    return OK


def _add_backup(commands: Any) -> None:
    found = "PostgreSQL is found through its PG* variables, a store through AWS_ENDPOINT_URL and its keys."
    save = add_command(commands, "backup", _backup, "a team's databases and store into one folder", found)
    save.add_argument("--out", type=Path, required=True, help="new folder")
    back = add_command(commands, "restore", _restore, "put a backup back; services must be stopped", found)
    back.add_argument("--folder", type=Path, required=True, help="a folder that `photoverse backup` made")
    for command in (save, back):
        command.add_argument("--store", required=True, help="URL of the store, e.g. s3://photoverse")


def _backup(options: argparse.Namespace) -> int:
    from flows.backup import backup

    print(f"{backup(options.out, options.store)} files in {options.out}")
    return OK


def _restore(options: argparse.Namespace) -> int:
    from flows.backup import restore

    print(f"{restore(options.folder, options.store)} files restored from {options.folder}")
    return OK


def _add_manifests(commands: Any) -> None:
    command = add_command(
        commands,
        "manifests",
        _manifests,
        "Kubernetes manifests from one file of values",
        "Talks to no cluster.",
    )
    command.add_argument(
        "--values", type=Path, default=PROJECT / "infra/kubernetes/values.yaml",
        help="(default: infra/kubernetes/values.yaml)",
    )  # fmt: skip
    command.add_argument("--out", type=Path, required=True, help="folder for the manifests")


def _manifests(options: argparse.Namespace) -> int:
    from flows.manifests import write_manifests

    for path in write_manifests(options.values, options.out):
        print(path)
    return OK


def _add_scale(commands: Any) -> None:
    command = add_command(
        commands, "scale", _scale, "forecast of time, money and traffic for large sets", "See docs/SCALE.md."
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="an assumption, e.g. --set hardware.gpu_hour=2.5 or --set work.batch=512",
    )  # fmt: skip
    command.add_argument("--photos", type=int, nargs="+", help="sizes of sets")
    command.add_argument("--gpus", type=int, nargs="+", help="numbers of GPUs")


def _scale(options: argparse.Namespace) -> int:
    from flows.scale import GPUS, PHOTOS, forecast, table

    model = forecast(parse_settings(options.settings))
    print(table(model, options.photos or PHOTOS, options.gpus or GPUS))
    return OK


def _add_doctor(commands: Any) -> None:
    command = add_command(
        commands, "doctor", _doctor, "look at machine and installation; each finding with its mend"
    )
    command.add_argument(
        "--profile", default="portraits",
        help="profile whose weights and services to look for (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting over the profile's, e.g. --set runner.ray_address=http://head:8265",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="for scripts; exit code 1: to mend")


def _doctor(options: argparse.Namespace) -> int:
    from flows.doctor import as_json, examine, say

    findings = examine(options.profile, parse_settings(options.settings))
    print(as_json(findings) if options.json else say(findings))
    return FAILED if any(finding.mend for finding in findings) else OK
