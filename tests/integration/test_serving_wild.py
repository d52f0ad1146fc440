"""Two replicas of the real engine on the portrait base, over HTTP: generated requests, and who draws them.

Slow: `pytest -m slow tests/integration/test_serving_wild.py`; two or three minutes, most of it Ray's start.
"""

import dataclasses
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.checks import positive_data_acceptance

from components.face import FaceConfig
from components.inference import Dials, Personalizer
from components.model import ModelConfig
from components.portraits.world import portrait
from components.registry import resolve
from tests.champion import pixels, register_champion, request_of
from tests.served import served
from tests.unit.serving.wild import bodies

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PHOTO = portrait(800_000, 0, 128).image_uint8
REQUESTS = 400
COUNTER = "ray_photoverse_pictures"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return register_champion(tmp_path_factory.mktemp("champion"), ModelConfig())[0]


@pytest.fixture(scope="module")
def server(tracking, tmp_path_factory):
    settings = {"serving.replicas": 2, "serving.auth": "on"}  # as beyond loopback
    with served(tracking, tmp_path_factory.mktemp("runs"), settings, "a token of this test") as running:
        yield running


def good() -> dict:
    return request_of(PHOTO)


def test_who_shows_no_token_is_turned_away(server):
    stranger = dataclasses.replace(server, token=None)
    assert stranger.post(good())[0] == 401
    assert dataclasses.replace(server, token="another token").post(good())[0] == 401
    assert stranger.get("/health")[0] == 200
    assert "a token of this test" not in (server.root / "server.log").read_text()


def test_two_replicas_share_the_requests_and_draw_what_python_draws(server, tracking):
    model = resolve(tracking, "photoverse", "champion")
    tool = Personalizer.load(
        model.adapter, ModelConfig.model_validate(model.model), FaceConfig.model_validate(model.face)
    )
    card, dials = tool.card(PHOTO), Dials.model_validate(model.dials)
    seeds = list(range(8))
    expected = tool.generate([card] * 8, ["a photo of S*"] * 8, seeds, dials)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(server.post, [good() | {"seed": seed} for seed in seeds * 5]))
    for (status, values, _), seed in zip(answers, seeds * 5, strict=True):
        assert status == 200, values
        assert np.abs(pixels(values["pictures"][0]) - np.asarray(expected[seed]).astype(int)).max() <= 1
    end, drawn = time.monotonic() + 60, pictures_by_process(server.metrics)
    while sum(drawn.values()) < 40 and time.monotonic() < end:  # Ray's figures come every few seconds
        time.sleep(1)
        drawn = pictures_by_process(server.metrics)
    print(f"pictures by replica: {sorted(drawn.values())}")
    assert len(drawn) == 2, drawn
    assert sum(drawn.values()) == 40
    assert min(drawn.values()) >= 4


def pictures_by_process(metrics: str) -> dict[str, float]:
    """Reads what Prometheus would: how many pictures each replica has drawn, by its labels."""
    with urllib.request.urlopen(metrics, timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [s for family in families for s in family.samples if s.name.startswith(COUNTER)]
    names = {sample.name for sample in samples}
    name = f"{COUNTER}_total" if f"{COUNTER}_total" in names else COUNTER
    return {str(sorted(s.labels.items())): s.value for s in samples if s.name == name}


seen: Counter[int] = Counter()


@settings(
    max_examples=REQUESTS, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(bodies(good))
def test_whatever_is_sent_no_500_no_hang(server, body):
    begin = time.monotonic()
    status, values, _ = server.post(body)
    seen[status] += 1
    assert status in (200, 400), values
    assert time.monotonic() - begin < 60
    if status == 400:
        assert "\n" not in values["error"]
        assert len(values["error"]) <= 300
        assert good()["photo"][:30] not in values["error"]


def test_the_generated_requests_were_of_both_kinds(server):
    print(dict(seen))
    assert sum(seen.values()) >= REQUESTS
    assert min(seen[200], seen[400]) >= 20
    assert server.get("/ready")[0] == 200


@pytest.mark.parametrize("path", ["/v1/pictures", "/health", "/ready", "/schema", "/openapi.json"])
def test_schemathesis_finds_nothing(server, path):
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    operation = schema[path]["POST" if path == "/v1/pictures" else "GET"]

    @settings(
        max_examples=100, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy())
    def check(case):
        case.call_and_validate(timeout=60, headers=server.headers, excluded_checks=[positive_data_acceptance])

    check()
