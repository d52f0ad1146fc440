"""The command about a server for teams: serve."""

import argparse
from typing import Any

from flows.commands.options import OK, add_command, add_root, parse_settings, root_of
from flows.environment import PROJECT


def add_commands(commands: Any) -> None:
    """Adds this file's commands to the parser."""
    details = (
        "Ray Serve: requests of different people are drawn together, in several replicas. Stops at Ctrl-C or "
        "SIGTERM when what it accepted is answered. Beyond loopback callers need a token: $PHOTOVERSE_TOKEN, "
        "or the one that is printed at the start."
    )
    command = add_command(commands, "serve", _serve, "serve the registered model over HTTP", details)
    command.add_argument("--model", help="models:/NAME@ALIAS or models:/NAME/VERSION (default: the champion)")
    command.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    command.add_argument("--port", type=int, help="(default: 8000)")
    command.add_argument("--replicas", type=int, help="processes that draw (default: 1)")
    command.add_argument(
        "--profile", default="portraits", help="name in infra/profiles or a YAML file (default: %(default)s)"
    )
    add_root(command)
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting over the profile's, e.g. --set serving.waiting=64",
    )  # fmt: skip


def _serve(options: argparse.Namespace) -> int:
    from components.core import deep_merge, setup_logging
    from components.registry import resolve as look_up
    from components.serving import Model, serve_until_stopped
    from flows.config import anchored, resolve

    setup_logging()
    asked = {name: getattr(options, name) for name in ("host", "port", "replicas")}
    serving = {name: value for name, value in asked.items() if value is not None}
    settings = deep_merge({"root": root_of(options), "serving": serving}, parse_settings(options.settings))
    config = anchored(resolve(options.profile, settings, name="serve"))
    wanted = options.model or config.registry.alias
    found = look_up(config.tracking, config.registry.model_name, wanted)
    model = Model(found.model_uri, found.folder, config.tracking)
    people, provenance = PROJECT / config.root / "people", config.batch.provenance.model_dump(mode="json")
    serve_until_stopped(model, config.serving, config.runtime, people, provenance)
    return OK
