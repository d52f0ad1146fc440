"""The door without Ray: strict, brief, never silent, never endless. The engine is a fake."""

import asyncio
import base64
import hashlib
import io
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from components.serving import Door, ServingConfig
from components.serving.proxy import ComeAgain
from tests.unit.serving.fakes import LIMITS, PICTURE, client_of, encoded, good, invert


@pytest.fixture
def call():
    """call(method, path, **) -> response of a door that draws with `invert`."""

    def go(method="POST", path="/v1/pictures", draw=invert, config=None, token=None, told=None, **request):
        async def once():
            mark = None if token is None else hashlib.sha256(token.encode()).hexdigest()
            more = {} if told is None else {"told": told}
            door = Door(draw, LIMITS, "7", config or ServingConfig(), mark, **more)
            async with client_of(door) as client:
                return await client.request(method, path, **request)

        return asyncio.run(once())

    return go


def test_a_good_request_gets_its_pictures(call):
    told = []
    answer = call(json=good(pictures=2, seed=5), told=lambda *what: told.append(what))
    assert answer.status_code == 200
    values = answer.json()
    assert (values["seeds"], values["model_version"]) == ([5, 6], "7")
    assert set(values["timings"]) == {"drawing", "encoding", "total"}
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(values["pictures"][1]))))
    np.testing.assert_array_equal(pixels, 255 - np.asarray(PICTURE))
    assert [(status, pictures) for status, _, pictures in told] == [(200, 2)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"junk", "is no JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[]", "expected a mapping of fields, found list"),
        (b"null", "found NoneType"),
        (b"{}", "prompt: Field required"),
        (b'{"seed": NaN}', "NaN is no JSON number"),
        (b'{"seed": -Infinity}', "no JSON number"),
        (b'{"seed": 1, "seed": 2}', "stands twice"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "no strict JSON"),
        (b"[" * 50_000, "nested too deeply"),
        (b"x" * 300_000, "larger than 233333 bytes"),
        (json.dumps(good(colour="red")).encode(), "'colour': unknown field"),
        (json.dumps(good(photo="not base64!")).encode(), "not valid base64"),
        (json.dumps(good(photo=base64.b64encode(encoded(size=(40, 30))[:99]).decode())).encode(), "photo"),
        (json.dumps(good(photo=base64.b64encode(encoded(size=(1200, 1000))).decode())).encode(), "pixels"),
        (json.dumps(good(consent=None)).encode(), "consent"),
        (json.dumps(good(dials={"sigma": 9})).encode(), "dials.sigma"),
        (json.dumps(good(prompt="no face")).encode(), "no face found in the photo"),
    ],
)
def test_the_callers_fault_is_a_400_in_one_line(call, content, words):
    answer = call(content=content)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_body_of_unknown_length_is_read_no_further_than_allowed(call):
    sent = []

    async def parts():
        for _ in range(1000):
            sent.append(1)
            yield b"x" * 100_000

    assert call(content=parts()).status_code == 400


def test_our_own_fault_is_a_500_with_an_id_that_the_log_knows(call, caplog):
    answer = call(json=good(prompt="a bug"))
    assert answer.status_code == 500
    words = answer.json()["error"].split()
    assert words[:2] == ["internal", "fault"]
    assert words[2].rstrip(":") in caplog.text
    assert "unet" not in answer.text
    assert "weights of the unet are gone" in caplog.text


def test_health_readiness_schema_and_what_is_not_there(call):
    assert call("GET", "/health").json() == {"status": "ok", "model_version": "7"}
    assert call("GET", "/ready").json()["status"] == "ready"
    assert "prompt" in call("GET", "/schema").json()["properties"]
    assert call("GET", "/admin").status_code == 404
    wrong = call("GET", "/v1/pictures")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", "Basic s3cret", "s3cret", "Bearer s3cre\u00e9"]
)
def test_without_the_token_nothing_is_read(call, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = call(json=good(), token="s3cret", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert call("GET", "/health", token="s3cret").status_code == 200  # an orchestrator has no token


def test_with_the_token_pictures_are_drawn(call):
    headers = {"Authorization": "Bearer s3cret"}
    assert call(json=good(), token="s3cret", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "auth", "needed"),
    [
        ("127.0.0.1", "auto", False), ("::1", "auto", False), ("localhost", "auto", False),
        ("0.0.0.0", "auto", True), ("10.1.2.3", "auto", True), ("somewhere", "auto", True),
        ("0.0.0.0", "off", False), ("127.0.0.1", "on", True),
        ("0.0.0.0", False, False), ("127.0.0.1", True, True),  # as YAML reads off and on
    ],
)  # fmt: skip
def test_beyond_loopback_a_token_is_asked_for(host, auth, needed):
    assert ServingConfig(host=host, auth=auth).needs_token is needed


def test_the_token_comes_from_the_environment_or_is_made(monkeypatch):
    from components.serving.run import TOKEN, read_token

    open_ = ServingConfig(host="0.0.0.0")
    assert read_token(ServingConfig()) is None
    assert len(read_token(open_)) > 30
    assert read_token(open_) != read_token(open_)
    monkeypatch.setenv(TOKEN, "a secret of the team")
    assert read_token(open_) == "a secret of the team"
    monkeypatch.setenv(TOKEN, "short")
    with pytest.raises(ValueError, match="has 5 characters; a token needs at least 16"):
        read_token(open_)


def test_who_finds_no_room_is_sent_away_at_once_and_told_when_to_come_again():
    async def scene():
        gate = asyncio.Event()

        async def slow(job):
            await gate.wait()
            return await invert(job)

        door = Door(slow, LIMITS, "7", ServingConfig(waiting=3, retry_after_s=5))
        async with client_of(door) as client:
            calls = [asyncio.create_task(client.post("/v1/pictures", json=good(seed=i))) for i in range(10)]
            while sum(call.done() for call in calls) < 7:
                await asyncio.sleep(0.01)
            away = [call.result() for call in calls if call.done()]
            ready = await client.get("/ready")
            bad = await client.post("/v1/pictures", json={})
            gate.set()
            served = [await call for call in calls if call.result not in away]
            return away, ready, bad, served, (await client.get("/ready")).status_code

    away, ready, bad, all_, ready_again = asyncio.run(scene())
    assert [one.status_code for one in away] == [503] * 7
    assert {one.headers["Retry-After"] for one in away} == {"5"}
    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "5")
    assert bad.status_code == 400  # what is wrong is told even when there is no room
    assert sorted(one.status_code for one in all_) == [200] * 3 + [503] * 7
    assert ready_again == 200


def test_the_proxy_says_come_again_where_the_application_is_away():
    async def away(scope, receive, send):
        status = 503 if scope["path"] == "/health" else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def scene():
        transport = httpx.ASGITransport(ComeAgain(away, "3"))
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
            return [await client.get(path) for path in ("/v1/pictures", "/health", "/other")]

    ours, full, other = asyncio.run(scene())
    assert [(one.status_code, one.headers["Retry-After"]) for one in (ours, full)] == [(503, "3")] * 2
    assert ours.json() == {"error": "the server is starting or stopping"}
    assert other.status_code == 404
    assert "Retry-After" not in other.headers
