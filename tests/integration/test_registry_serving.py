"""From an adapter on a tiny base to a served model: register, resolve, load here, serve in a process."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.evaluation.scores import Figure, JudgeFigures
from components.evaluation.tracking import log_to_run
from components.face import FaceConfig
from components.inference import CardStore, Consent, Dials, Personalizer, inspect_picture
from components.model import ModelConfig
from components.portraits.world import portrait
from components.registry import resolve
from components.registry.store import Store, pointed_at
from flows.config import anchored
from flows.config import resolve as resolve_config
from flows.page import open_page
from flows.single import load_personalizer
from tests.champion import DIALS, pixels, register_champion, request_of
from tests.integration.conftest import BLOCKED
from tests.readme import examples, run_example


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    """(TrackingConfig, Promotion) of an untrained adapter that a lenient gate let through."""
    return register_champion(tmp_path_factory.mktemp("champion"))


@pytest.fixture(scope="module")
def photo_uint8() -> np.ndarray:
    return portrait(800_000, 0, 128).image_uint8


@pytest.fixture(scope="module")
def personalizer(champion) -> Personalizer:
    model = resolve(champion[0], "photoverse", "champion")
    return Personalizer.load(
        model.adapter, ModelConfig.model_validate(model.model), FaceConfig.model_validate(model.face)
    )


@pytest.fixture(scope="module")
def in_python(champion, personalizer, photo_uint8) -> np.ndarray:
    """The picture that the same call makes without any registry or server."""
    card, dials = personalizer.card(photo_uint8), resolve(champion[0], "photoverse", "champion").dials
    (picture,) = personalizer.generate([card], ["a photo of S*"], [3], Dials.model_validate(dials))
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Folder of all runs: people and the signing key."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def store(root) -> CardStore:
    return CardStore(root / "people")


def test_the_champion_is_whole_and_needs_nothing_outside_its_version(champion):
    tracking, promotion = champion
    assert (promotion.decision, promotion.version) == ("promoted", "1")
    model = resolve(tracking, "photoverse", "champion")
    assert model.model_uri == promotion.model_uri == "models:/photoverse/1"
    assert Path(model.base).is_relative_to(model.folder)
    assert model.dials == DIALS


def test_the_version_belongs_to_the_run_that_trained_it_and_the_run_gets_the_figures(champion, tmp_path):
    tracking, promotion = champion
    store = Store(tracking, "photoverse")
    run_id = store.version("champion").run_id
    assert run_id
    row = {
        column: Figure(mean=0.5, interval=(0.25, 0.75), people=3)
        for column in ("generated", "floor", "base_alone", "ceiling", "retrieval_top1", "found")
    }
    table = JudgeFigures(
        judge="identity", rows={"all": row, "group: Søør": row}, largest_gap=0.0, ceiling_retrieval_top1=None
    )
    for name in ("report.json", "report.html", "faces.png"):
        (tmp_path / name).write_text("x")
    log_to_run(tracking, run_id, [table], tmp_path)
    run = store.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["evaluate.identity.generated"] == 0.5
    assert run.data.metrics["evaluate.identity.generated_low"] == 0.25
    assert run.data.metrics["evaluate.identity.group.S__r.generated"] == 0.5
    found = {artifact.path for artifact in store.client.list_artifacts(run_id, "evaluation")}
    assert found == {f"evaluation/{name}" for name in ("report.json", "report.html", "faces.png")}


def test_the_loaded_model_draws_the_same_picture_as_python(champion, photo_uint8, in_python):
    with pointed_at(champion[0]) as mlflow:
        loaded = mlflow.pyfunc.load_model("models:/photoverse@champion")
    (answer,) = loaded.predict([request_of(photo_uint8, pictures=2)])
    assert answer["seeds"] == [3, 4]
    assert answer["model_version"] == "1"
    assert np.abs(pixels(answer["pictures"][0]) - in_python).max() <= 1
    recipe = json.loads(Image.open(io.BytesIO(base64.b64decode(answer["pictures"][0]))).info["photoverse"])
    assert recipe["ai_generated"] is True
    assert recipe["seed"] == 3
    assert recipe["model"] == "models:/photoverse/1"
    for fault, words in (
        ({"card": "f" * 32, "prompt": "S*"}, "no cards are kept here"),
        (request_of(np.zeros((64, 64, 3), np.uint8)), "no face"),
        (request_of(photo_uint8, prompt="S* " + "word " * 100), "token"),
        (request_of(photo_uint8, dials={"m": 9}), "m = 9"),
    ):
        with pytest.raises(Exception, match=words) as caught:
            loaded.predict([fault])
        assert caught.value.get_http_status_code() == 400


def test_the_command_and_the_page_start_on_the_champion(champion, photo_uint8, tmp_path, capsys):
    import gradio

    tracking = {"uri": champion[0].uri, "artifact_location": champion[0].artifact_location}
    settings = {"root": str(tmp_path), "tracking": tracking}
    tool = load_personalizer(anchored(resolve_config("portraits", settings, name="a-test")), None)
    assert tool.model_version == "models:/photoverse/1"
    try:
        address = open_page(settings=settings, wait=False)
        with urllib.request.urlopen(f"{address}config", timeout=60) as answer:
            assert "models:/photoverse/1" in answer.read().decode()
    finally:
        gradio.close_all()
    assert "PhotoVerse is at http://127.0.0.1" in capsys.readouterr().out


@pytest.fixture(scope="module")
def server(champion, root, tmp_path_factory):
    """Address of `mlflow models serve` on a free port, started as a user would, stopped with its children."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binaries = Path(sys.executable).parent
    log = tmp_path_factory.mktemp("serve") / "server.log"
    environment = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": champion[0].uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PHOTOVERSE_ROOT": str(root),
    }
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(BLOCKED, encoding="utf-8")  # no name is resolved
    environment |= {"PYTHONPATH": str(site), "BLOCKED_NAMES_LOG": str(site / "names.log")}
    command = [str(binaries / "mlflow"), "models", "serve", "-m", "models:/photoverse@champion"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)],
            env=environment,
            cwd=log.parent,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/ping", process, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
    assert not (site / "names.log").exists(), (site / "names.log").read_text()


def wait_until_up(address: str, process: subprocess.Popen, log: Path, timeout_s: float = 240) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the server did not come up:\n{log.read_text()[-3000:]}")


def post(address: str, body: bytes) -> tuple[int, dict]:
    call = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(call, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_server_draws_the_same_picture_as_python(server, photo_uint8, in_python):
    status, answer = post(server, json.dumps({"inputs": [request_of(photo_uint8)]}).encode())
    assert status == 200
    assert answer["predictions"][0]["model_version"] == "1"
    assert np.abs(pixels(answer["predictions"][0]["pictures"][0]) - in_python).max() <= 1


def test_a_kept_card_draws_what_its_photo_draws(server, store, personalizer, photo_uint8, in_python):
    consent = Consent(person="anna", purpose="a test", given="2026-01-01")
    name = store.keep(personalizer.card(photo_uint8, consent=consent))
    call = {"card": name, "prompt": "a photo of S*", "seed": 3}
    status, answer = post(server, json.dumps({"inputs": [call]}).encode())
    assert status == 200, answer
    assert np.abs(pixels(answer["predictions"][0]["pictures"][0]) - in_python).max() <= 1
    assert [(row.event, row.card) for row in store.audit.rows("anna")] == [("made", name), ("used", name)]
    status, answer = post(server, json.dumps({"inputs": [call | {"card": "f" * 32}]}).encode())
    assert (status, "no card" in answer["message"]) == (400, True)


def test_what_is_served_is_signed_with_the_key_of_the_root(server, root, photo_uint8, tmp_path):
    _, answer = post(server, json.dumps({"inputs": [request_of(photo_uint8)]}).encode())
    (tmp_path / "a.png").write_bytes(base64.b64decode(answer["predictions"][0]["pictures"][0]))
    found = inspect_picture(tmp_path / "a.png")
    assert (found.credentials["state"], found.watermarked) == ("valid", True)
    assert found.recipe["model"] == "models:/photoverse/1"
    assert (root / "credentials" / "key.pem").is_file()


def test_the_examples_of_the_readme_do_what_they_say(server, photo_uint8, tmp_path):
    page, here = "components/registry/README.md", ("localhost:5000", server.split("/")[2])
    (shell,) = examples(page, "sh")
    answer = json.loads(run_example(shell, "sh", tmp_path, photo_uint8, here))["predictions"][0]
    assert answer["seeds"] == [1, 2]
    assert len(answer["pictures"]) == len(answer["similarity"]) == 2
    (python,) = examples(page, "python")
    run_example(python, "python", tmp_path, photo_uint8, here)
    assert inspect_picture(tmp_path / "me.png").credentials["state"] == "valid"


def test_the_server_says_each_fault_in_one_line_without_the_photo(server, photo_uint8):
    good = request_of(photo_uint8)
    for changed, words in (
        ({"colour": "red"}, "'colour': unknown field"),
        ({"photo": good["photo"][:-5] + "!"}, "not valid base64"),
        ({"photo": base64.b64encode(b"GIF89a").decode()}, "no picture file"),
        ({"seed": "3"}, "seed"),
        ({"dials": {"gamma": 99}}, "dials.gamma"),
        ({"consent": ""}, "consent"),
    ):
        status, answer = post(server, json.dumps({"inputs": [good | changed]}).encode())
        assert status == 400, changed.keys()
        assert words in answer["message"]
        assert "\n" not in answer["message"]
        assert len(answer["message"]) < 300
        assert good["photo"][:40] not in json.dumps(answer)
        assert "Traceback" not in json.dumps(answer)


def test_the_server_refuses_what_is_no_call(server):
    for body in (b"junk", b"[]", b"{}", b'{"inputs": 3}', b'{"dataframe_records": [{"photo": "QUJD"}]}'):
        assert post(server, body)[0] == 400
