"""Settings of the server."""

import ipaddress
from typing import Any, Literal

from pydantic import Field, field_validator

from components.core import StrictConfig


class ServingConfig(StrictConfig):
    """How the registered model is served by Ray Serve; what a request may ask for is in its `ServingLimits`.

    Attributes:
        host: Address to listen on; beyond loopback a token is asked for.
        port: Port of the door.
        metrics_port: Port of Ray's Prometheus metrics; None lets Ray choose one, which the log names.
        auth: "auto" asks for a token when `host` is beyond loopback; "on" and "off" do so or not in any case.
        replicas: Processes that draw, each with a model of its own.
        gpus: GPUs of a replica.
        batch_requests: Requests that are drawn together at most.
        batch_pictures: Pictures that are denoised together at most.
        batch_wait_s: How long a request waits for others to be drawn with.
        waiting: Requests that a replica accepts at once; the next one is sent away with 503.
        retry_after_s: After how many seconds a client that was sent away may come again.
        drain_s: How long a stopped server goes on, to answer what it accepted.
        stuck_s: A batch that takes longer makes the replica unhealthy: Ray Serve puts a new one in its place.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    auth: Literal["auto", "on", "off"] = "auto"
    replicas: int = Field(default=1, ge=1)
    gpus: float = Field(default=0, ge=0, allow_inf_nan=False)
    batch_requests: int = Field(default=8, ge=1, le=256)
    batch_pictures: int = Field(default=8, ge=1, le=256)
    batch_wait_s: float = Field(default=0.02, ge=0, le=10)
    waiting: int = Field(default=32, ge=1)
    retry_after_s: int = Field(default=2, ge=1)
    drain_s: float = Field(default=120, gt=0)
    stuck_s: float = Field(default=600, gt=0)

    @field_validator("auth", mode="before")
    @classmethod
    def _yaml_words(cls, auth: Any) -> Any:
        """YAML reads `on` and `off` as true and false."""
        return {True: "on", False: "off"}[auth] if isinstance(auth, bool) else auth

    @property
    def needs_token(self) -> bool:
        """Whether callers must show a token."""
        if self.auth != "auto":
            return self.auth == "on"
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return True  # a name may be anywhere
