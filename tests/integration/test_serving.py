"""A team's server as a user starts it: `photoverse serve` on Ray Serve, one for all tests of this file.

Most of their time is Ray's start; the slow one sends 500 requests.
"""

import base64
import json
import random
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest

from components.face import FaceConfig
from components.inference import CardStore, Consent, Dials, Personalizer, inspect_picture
from components.model import ModelConfig
from components.portraits.world import portrait
from components.registry import resolve
from tests.champion import pixels, register_champion, request_of
from tests.readme import examples, run_example
from tests.served import served

PEOPLE = [800_000 + number for number in range(4)]
PROMPTS = ["a photo of S*", "S* smiling", "S* with glasses", "S* on a blue background"]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return register_champion(tmp_path_factory.mktemp("champion"))[0]


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [portrait(person, 0, 128).image_uint8 for person in PEOPLE]


@pytest.fixture(scope="module")
def personalizer(tracking) -> tuple[Personalizer, Dials]:
    model = resolve(tracking, "photoverse", "champion")
    face, config = FaceConfig.model_validate(model.face), ModelConfig.model_validate(model.model)
    return Personalizer.load(model.adapter, config, face), Dials.model_validate(model.dials)


@pytest.fixture(scope="module")
def in_python(personalizer, photos) -> Callable[[int], np.ndarray]:
    """in_python(i): the picture that the same call makes without any server, drawn once."""
    tool, dials = personalizer
    cards = [tool.card(photo) for photo in photos]
    drawn: dict[int, np.ndarray] = {}

    def picture(i: int) -> np.ndarray:
        if i not in drawn:
            (image,) = tool.generate([cards[i % 4]], [PROMPTS[i // 4 % 4]], [i], dials)
            drawn[i] = np.asarray(image).astype(int)
        return drawn[i]

    return picture


def wish(photos: list[np.ndarray], i: int, **changed: Any) -> dict:
    return request_of(photos[i % 4], **{"prompt": PROMPTS[i // 4 % 4], "seed": i} | changed)


@pytest.fixture(scope="module")
def server(tracking, tmp_path_factory):
    settings = {"serving.waiting": 8, "serving.batch_wait_s": 0.05}
    with served(tracking, tmp_path_factory.mktemp("runs"), settings) as running:
        yield running


def test_the_server_says_that_it_is_well_and_ready(server):
    assert server.get("/health") == (200, {"status": "ok", "model_version": "1"})
    assert server.get("/ready")[0] == 200
    assert "prompt" in server.get("/schema")[1]["properties"]
    assert server.get("/nowhere")[0] == 404


def test_people_and_prompts_that_meet_in_a_batch_are_drawn_as_in_python(server, photos, in_python):
    with ThreadPoolExecutor(8) as pool:
        other = wish(photos, 5, dials={"num_inference_steps": 3})
        nobody = wish([np.zeros((64, 64, 3), np.uint8)] * 4, 6)
        bodies = [wish(photos, 0, similarity=True), *(wish(photos, i) for i in (1, 6, 11)), other, nobody]
        first, *answers, more_steps, no_face = pool.map(server.post, bodies)
    for i, (status, values, _) in zip((0, 1, 6, 11), (first, *answers), strict=True):
        assert status == 200, values
        assert values["seeds"] == [i]
        assert values["model_version"] == "1"
        assert np.abs(pixels(values["pictures"][0]) - in_python(i)).max() <= 1
    assert {"person", "drawing", "encoding", "total"} == set(first[1]["timings"])
    assert len(first[1]["similarity"]) == 1
    assert "similarity" not in answers[0][1]
    assert more_steps[0] == 200
    assert np.abs(pixels(more_steps[1]["pictures"][0]) - in_python(5)).max() > 1
    assert no_face[:2] == (400, {"error": "no face found in the photo", "reason": "no_face"})


def test_what_is_served_is_marked_and_signed_with_the_key_of_the_root(server, photos, tmp_path):
    _, values, _ = server.post(wish(photos, 2))
    (tmp_path / "a.png").write_bytes(base64.b64decode(values["pictures"][0]))
    found = inspect_picture(tmp_path / "a.png")
    assert (found.credentials["state"], found.watermarked) == ("valid", True)
    assert (found.recipe["model"], found.recipe["seed"]) == ("models:/photoverse/1", 2)
    assert (server.root / "credentials" / "key.pem").is_file()


def test_the_examples_of_the_readme_do_what_they_say(server, photos, tmp_path):
    page, here = "components/serving/README.md", ("localhost:8000", server.address.removeprefix("http://"))
    (shell,) = examples(page, "sh")
    assert json.loads(run_example(shell, "sh", tmp_path, photos[0], here))["seeds"] == [1]
    (python,) = examples(page, "python")
    run_example(python, "python", tmp_path, photos[0], here)
    assert inspect_picture(tmp_path / "me.png").credentials["state"] == "valid"


def test_a_kept_card_draws_what_its_photo_draws_and_the_log_says_so(server, photos, personalizer, in_python):
    store = CardStore(server.root / "people")
    consent = Consent(person="anna", purpose="a test", given="2026-01-01")
    name = store.keep(personalizer[0].card(photos[0], consent=consent))
    body = {"card": name, "prompt": PROMPTS[0], "seed": 0}
    status, values, _ = server.post(body)
    assert status == 200, values
    assert np.abs(pixels(values["pictures"][0]) - in_python(0)).max() <= 1
    assert [(row.event, row.card) for row in store.audit.rows("anna")] == [("made", name), ("used", name)]
    assert server.post(body | {"card": "f" * 32})[0] == 400


def test_faults_are_told_in_one_line(server, bad):
    for body, words in bad:
        status, values, _ = server.post(body)
        assert status == 400, values
        assert words in values["error"]
        assert "\n" not in values["error"]


@pytest.fixture
def bad(photos, png_header) -> list[tuple[Any, str]]:
    """Requests that are wrong, each in its own way, with a word of the reason."""
    photo = wish(photos, 0)["photo"]
    return [
        (b"junk", "no JSON"),
        (wish(photos, 0, colour="red"), "unknown field"),
        (wish(photos, 0, photo=photo[:-5] + "!"), "base64"),
        (wish(photos, 0, photo=base64.b64encode(b"GIF89a").decode()), "no picture"),
        (wish(photos, 0, photo=photo[:2000]), "photo"),
        (wish(photos, 0, consent=None), "consent"),
        (wish(photos, 0, dials={"gamma": 99}), "dials.gamma"),
        (wish(photos, 0, prompt="S* " + "word " * 90), "token"),
        (wish(photos, 0, pictures=1000), "pictures"),
        (wish([np.zeros((64, 64, 3), np.uint8)] * 4, 0), "no face"),
        (wish([np.hstack(photos[:2])] * 4, 0), "several faces"),
        (wish(photos, 0, photo=base64.b64encode(png_header(60_000, 60_000)).decode()), "pixels"),
        (json.dumps(wish(photos, 0, dials={"gamma": float("nan")})).encode(), "NaN is no JSON number"),
    ]


def test_prometheus_sees_requests_batches_and_what_waits(server, photos):
    end = time.monotonic() + 90  # Ray's figures come every few seconds
    wanted = [
        "ray_photoverse_requests",
        "ray_photoverse_pictures",
        "ray_photoverse_waiting",
        "ray_photoverse_batch_requests_count",
        "ray_photoverse_request_seconds_count",
        "ray_serve_",
    ]
    missing = wanted
    while missing and time.monotonic() < end:
        server.post(b"junk")
        with urllib.request.urlopen(server.metrics, timeout=60) as answer:
            text = answer.read().decode()
        missing = [name for name in wanted if f"\n{name}" not in text]
        time.sleep(1)
    assert missing == []
    assert 'status="400"' in text


def test_who_finds_no_room_is_told_when_to_come_again(server, photos):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(server.post, [wish(photos, i % 4) for i in range(20)]))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 8
    for status, values, headers in answers:
        if status == 503:
            assert {name.lower(): value for name, value in headers.items()}["retry-after"] == "2"
            assert "waiting already" in values["error"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_500_mixed_requests_of_8_clients_are_all_answered_right_in_flat_memory(
    server, photos, bad, in_python
):
    draw = random.Random(0)
    kinds = [draw.random() < 0.4 for _ in range(500)]  # good or bad
    replica = next(
        one
        for one in psutil.Process(server.process.pid).children(recursive=True)
        if "ServeReplica" in " ".join(one.cmdline())
    )
    memory: list[float] = []
    lock = threading.Lock()

    def one(number: int) -> None:
        if kinds[number]:
            i = number % 16
            status, values, _ = server.post(wish(photos, i))
            assert status == 200, values
            assert np.abs(pixels(values["pictures"][0]) - in_python(i)).max() <= 1
        else:
            body, words = bad[number % len(bad)]
            status, values, _ = server.post(body)
            assert 400 <= status < 500, values
            assert words in values["error"]
        with lock:
            memory.append(replica.memory_info().rss / 2**20)

    for i in range(16):
        in_python(i)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(one, range(500)))) == 500
    warm, end = np.median(memory[100:150]), np.median(memory[-50:])
    print(f"{sum(kinds)} of 500 good; replica: {warm:.0f} MiB after warm-up, {end:.0f} at the end")
    assert end <= 1.05 * warm


def test_what_was_accepted_is_answered_after_sigterm(server, photos):
    with ThreadPoolExecutor(5) as pool:
        long = {"num_inference_steps": 20}
        calls = [pool.submit(server.post, wish(photos, i, pictures=2, dials=long)) for i in range(5)]
        while server.get("/ready")[1].get("waiting", 0) < 5 and not any(call.done() for call in calls):
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        answers = [call.result() for call in calls]
    assert [status for status, _, _ in answers] == [200] * 5
    assert all(len(values["pictures"]) == 2 for _, values, _ in answers)
    assert server.process.wait(180) == 0
    with pytest.raises(urllib.error.URLError):
        server.get("/health")
