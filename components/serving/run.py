"""Starts the server, and stops it so that whatever was accepted is answered."""

import hashlib
import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core import RuntimeConfig, TrackingConfig, ray_session
from components.serving.config import ServingConfig

logger = logging.getLogger(__name__)
TOKEN = "PHOTOVERSE_TOKEN"
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
PATIENCE = {  # Ray's own 5 and 10 s are too short for a machine that is busy
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
}


@dataclass(frozen=True)
class Model:
    """The version to serve.

    Attributes:
        uri: `models:/<name>/<version>`.
        folder: Its package on this machine.
        tracking: Where it is registered, for replicas on other machines.
    """

    uri: str
    folder: Path
    tracking: TrackingConfig


def read_token(config: ServingConfig) -> str | None:
    """Returns the token that callers must show: $PHOTOVERSE_TOKEN, else a new one; None where none is needed.

    Raises:
        ValueError: The one given is too short to be a secret.
    """
    if not config.needs_token:
        return None
    token = os.environ.get(TOKEN, "")
    if not token:
        return secrets.token_urlsafe(32)
    if len(token) < 16:
        raise ValueError(f"${TOKEN} has {len(token)} characters; a token needs at least 16")
    return token


@contextmanager
def running(
    model: Model,
    config: ServingConfig,
    runtime: RuntimeConfig,
    people: Path | None = None,
    token: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> Iterator[str]:
    """Serves the model for the block; yields the address when it is ready, and drains when the block ends.

    Args:
        model: The version.
        config: Address, replicas, batches, queue.
        runtime: Ray.
        people: Folder of the kept cards.
        token: What callers must show; None asks for nothing.
        provenance: Values of `ProvenanceConfig`: mark and signature of the pictures.
    """
    from components.serving.proxy import RETRY_AFTER

    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    os.environ[CALLBACK] = "components.serving.proxy:middlewares"
    os.environ[RETRY_AFTER] = str(config.retry_after_s)
    with ray_session(runtime, metrics_port=config.metrics_port):
        from ray import serve

        from components.serving.application import NAME, build

        serve.start(http_options={"host": config.host, "port": config.port})
        serve.run(build(_arguments(model, config, people, token, provenance)), name=NAME, route_prefix="/")
        try:
            yield f"http://{config.host}:{config.port}"
        finally:
            # First the application, whose replicas finish what they accepted while the proxy passes it out;
            # then the proxy, which meanwhile sends everybody else away.
            logger.info("stopping: what was accepted is still answered")
            serve.delete(NAME)
            serve.shutdown()


def _arguments(
    model: Model,
    config: ServingConfig,
    people: Path | None,
    token: str | None,
    provenance: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "model": {
            "uri": model.uri,
            "folder": str(model.folder),
            "tracking": model.tracking.model_dump(mode="json"),
        },
        "config": config.model_dump(mode="json"),
        "people": None if people is None else str(people),
        "provenance": provenance,
        "token_sha256": None if token is None else hashlib.sha256(token.encode()).hexdigest(),
    }


def serve_until_stopped(
    model: Model,
    config: ServingConfig,
    runtime: RuntimeConfig,
    people: Path | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, says where, and drains; the arguments are those of `running`.

    Raises:
        ValueError: The token of the environment is too short.
    """
    token, stop = read_token(config), threading.Event()
    with running(model, config, runtime, people, token, provenance) as address:
        for number in (signal.SIGTERM, signal.SIGINT):  # after Ray, which sets its own
            signal.signal(number, lambda *_: stop.set())
        shown = "" if token is None or os.environ.get(TOKEN) else f", token {token}"
        print(f"{model.uri} at {address}/v1/pictures{shown}", flush=True)
        print(f"Prometheus metrics at {metrics_address()}", flush=True)
        stop.wait()
    print("stopped", flush=True)


def metrics_address() -> str:
    """Returns the address of Ray's Prometheus metrics on this machine."""
    import ray

    node = next(node for node in ray.nodes() if node["NodeID"] == ray.get_runtime_context().get_node_id())
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
