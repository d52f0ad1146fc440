"""One Ray session a stage: started for a laptop, joined on a cluster, always left clean."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from components.core.settings import RuntimeConfig

logger = logging.getLogger(__name__)
OFFLINE_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_session(runtime: RuntimeConfig, metrics_port: int | None = None) -> Iterator[None]:
    """Starts (address "local") or joins ("auto", `ray://`) Ray for the block, and leaves it afterwards.

    A session that the caller already has is used and left running.

    Args:
        runtime: Address and CPUs.
        metrics_port: Where a local Ray shows its Prometheus metrics; None lets it choose.
    """
    for name, value in OFFLINE_ENV.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    _start(runtime, metrics_port)
    try:
        yield
    finally:
        ray.shutdown()


def _start(runtime: RuntimeConfig, metrics_port: int | None) -> None:
    """Starts or joins Ray; a local node that missed Ray's fixed 30 s is started once more."""
    import ray

    local = runtime.ray_address == "local"
    for last_try in (False, True) if local else (True,):
        try:
            ray.init(
                address=runtime.ray_address,
                num_cpus=runtime.num_cpus if local else None,
                include_dashboard=False if local else None,
                _metrics_export_port=metrics_port if local else None,
                log_to_driver=True,
                logging_level=logging.WARNING,
            )
            return
        except Exception as error:  # Ray raises plain Exception here
            ray.shutdown()
            if last_try or "timed out during startup" not in str(error):
                raise
            logger.warning("Ray's node did not start in time (%s); starting it once more", error)
