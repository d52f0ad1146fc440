"""2,000 generated requests to the door: no 500, no crash, no hang, and no answer that says too much."""

import asyncio
import base64
import json
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.registry import Request
from components.serving import Door, ServingConfig
from tests.unit.serving.fakes import LIMITS, METHODS, client_of, encoded, good, invert

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [*Request.model_fields, "x"]
DIALS = ["gamma", "sigma", "alpha", "m", "guidance_scale", "num_inference_steps", "x"]


@st.composite
def photos(draw) -> str:
    """A photo's base64: whole, cut, spoilt in the middle, of another kind, or none at all."""
    kind = draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]))
    data = encoded(kind, draw(st.sampled_from([(1, 1), (8, 8), (40, 30)])))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        noise = draw(st.binary(max_size=30))
        data = data[:at] + noise + data[at + len(noise) * draw(st.integers(0, 3)) :]
    text = base64.b64encode(data).decode()
    return draw(
        st.sampled_from(
            [text, text[:-1], text + "=", text.replace("+", "-"), f" {text}", text[: len(text) // 2]]
        )
    )


CONSENTS = st.fixed_dictionaries(
    {"purpose": st.text(max_size=5)},
    optional={"person": st.text(max_size=5), "given": st.text(max_size=5) | st.dates().map(str)},
)
SPECIAL = {
    "photo": photos(),
    "consent": CONSENTS,
    "card": st.text("0123456789abcdef", min_size=31, max_size=33),
    "dials": st.dictionaries(st.sampled_from(DIALS), st.floats() | st.integers(-5, 60), max_size=3),
    "prompt": st.text(max_size=50) | st.sampled_from(["S*", "no face", "S* " * 500, "\ud800"]),
    "pictures": st.integers(-1, 6),
    "seed": st.integers(-1, 2**33),
}


@st.composite
def bodies(draw) -> bytes:
    """A request that is good but for some fields, any JSON, or any bytes."""
    shape = draw(st.sampled_from(["changed", "changed", "changed", "json", "bytes"]))
    if shape == "bytes":
        return draw(st.binary(max_size=200))
    if shape == "json":
        return json.dumps(draw(values)).encode("utf-8", "surrogatepass")
    request = good()
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        request[name] = draw(SPECIAL[name] if name in SPECIAL and draw(st.booleans()) else values)
        if draw(st.integers(0, 9)) == 0:
            del request[name]
    return json.dumps(request).encode("utf-8", "surrogatepass")


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
    bodies(),
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
