"""2,000 generated requests to the door: no 500, no crash, no hang, and no answer that says too much."""

import asyncio
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.serving import Door, ServingConfig
from tests.unit.serving.fakes import LIMITS, METHODS, client_of, good, invert
from tests.unit.serving.wild import bodies


class OneLoop:
    """A door in an event loop that stays open over all examples."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = client_of(Door(invert, LIMITS, "7", ServingConfig()))

    def __call__(self, method: str, path: str, body: bytes) -> httpx.Response:
        return self.loop.run_until_complete(self.client.request(method, path, content=body))


@pytest.fixture(scope="module")
def door():
    one = OneLoop()
    yield one
    one.loop.run_until_complete(one.client.aclose())
    one.loop.run_until_complete(one.loop.shutdown_default_executor())
    one.loop.close()


seen: dict[int, int] = {}


@settings(
    max_examples=2000, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(
    st.sampled_from(["POST"] * 12 + METHODS),
    st.sampled_from([*["/v1/pictures"] * 12, "/", "/health", "/ready", "/schema", "/v1/pictures/", "/%00"]),
    bodies(good),
)  # fmt: skip
def test_whatever_is_sent_no_500_no_crash_no_hang(door, method, path, body):
    begin = time.monotonic()
    answer = door(method, path, body)
    assert answer.status_code in (200, 400, 404, 405), (answer.status_code, answer.text, body)
    if answer.status_code >= 400 and method != "HEAD":
        error = answer.json()["error"]
        assert "\n" not in error
        assert len(error) <= 300
        assert "Traceback" not in error
        assert good()["photo"][:30] not in error
    assert time.monotonic() - begin < 60
    seen[answer.status_code] = seen.get(answer.status_code, 0) + 1


def test_the_generated_requests_were_of_all_kinds():
    assert sum(seen.values()) >= 2000
    assert min(seen.get(200, 0), seen.get(400, 0)) > 100, seen
