"""The Ray Serve application: replicas that each load the model once and draw requests in micro-batches.

`build` is what `serve deploy` of a cluster takes too: import path `components.serving.application:build`.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray import serve
from ray.util.metrics import Counter, Gauge, Histogram
from starlette.requests import Request
from starlette.responses import Response

from components.core import TrackingConfig, setup_logging
from components.registry import Job, Result, Surroundings, load_engine, read_package, resolve
from components.serving.config import ServingConfig
from components.serving.door import Door

NAME, DEPLOYMENT = "photoverse", "pictures"
SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120]


class PictureServer:
    """One replica.

    Args:
        model: `uri` of the version (a number, never an alias, which may move), `tracking` where it is
            registered, and `folder` where its files are on the machine that started the server.
        config: Values of `ServingConfig`.
        people: Folder of the kept cards; None knows no cards.
        provenance: Values of `ProvenanceConfig`.
        token_sha256: SHA-256 of the token that callers must show; None asks for none.
    """

    def __init__(
        self,
        model: dict[str, Any],
        config: dict[str, Any],
        people: str | None = None,
        token_sha256: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        from components.inference import CardStore, ProvenanceConfig

        setup_logging()
        self._config = ServingConfig.parse(config, source="serving")
        folder = Path(model["folder"])
        if not folder.is_dir():  # another machine
            tracking = TrackingConfig.parse(model["tracking"], source="tracking")
            folder = resolve(tracking, "photoverse", model["uri"]).folder
        package = read_package(folder)
        cards = None if people is None else CardStore(Path(people))
        around = Surroundings(cards, ProvenanceConfig.parse(provenance or {}, source="provenance"))
        self._engine = load_engine(package, model["uri"], around, self._config.batch_pictures)
        self._thread = ThreadPoolExecutor(1, "drawing")  # a pipeline must not be used by two threads at once
        self._busy_since: float | None = None
        self._meter = _Meter()
        version = model["uri"].rpartition("/")[2]
        self.door = Door(
            self._draw, package.limits, version, self._config, token_sha256, self._meter.request_answered
        )
        self._together.set_max_batch_size(self._config.batch_requests)  # type: ignore[attr-defined]
        self._together.set_batch_wait_timeout_s(self._config.batch_wait_s)  # type: ignore[attr-defined]

    async def __call__(self, request: Request) -> Response:
        """Answers an HTTP request."""
        response = await self.door.answer(request)
        self._meter.waiting.set(self.door.waiting)
        return response

    async def _draw(self, job: Job) -> Result:
        (result,) = await self._together(job)
        return result

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.02)
    async def _together(self, jobs: list[Job]) -> list[tuple[Result]]:
        """Draws what came in meanwhile: different people, prompts and dials."""
        self._busy_since = time.monotonic()
        self._meter.batch.observe(len(jobs))
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._engine, jobs)
        finally:
            self._busy_since = None
        return [(result,) for result in results]

    def check_health(self) -> None:
        """Called by Ray Serve now and then: a replica whose batch never ends is replaced."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._config.stuck_s:
            raise RuntimeError(f"a batch takes longer than {self._config.stuck_s} s")


class _Meter:
    """What Prometheus sees, beside Ray Serve's own figures (names begin with `ray_photoverse_`)."""

    def __init__(self) -> None:
        self.requests = Counter("photoverse_requests", "Requests for pictures, by status.", ("status",))
        self.pictures = Counter("photoverse_pictures", "Pictures that were drawn.")
        self.waiting = Gauge("photoverse_waiting", "Requests that a replica has accepted and not answered.")
        self.batch = Histogram("photoverse_batch_requests", "Requests drawn together.", [1, 2, 4, 8, 16])
        self.seconds = Histogram("photoverse_request_seconds", "From request to answer.", SECONDS)

    def request_answered(self, status: int, seconds: float, pictures: int) -> None:
        """Counts an answer."""
        self.requests.inc(1, {"status": str(status)})
        self.seconds.observe(seconds)
        if pictures:
            self.pictures.inc(pictures)


def build(arguments: dict[str, Any]) -> serve.Application:
    """Returns the application.

    Args:
        arguments: Those of `PictureServer`: `model`, `config`, `people`, `token_sha256`, `provenance`.
    """
    config = ServingConfig.parse(arguments.get("config", {}), source="serving")
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=config.replicas,
        # The door sends away whoever finds no room; these are the walls behind it.
        max_ongoing_requests=4 * config.waiting + 64,
        max_queued_requests=4 * config.waiting + 64,
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_timeout_s=60,
        ray_actor_options={"num_cpus": 1, "num_gpus": config.gpus},
    )(PictureServer)
    return deployment.bind(**(arguments | {"config": config.model_dump(mode="json")}))
