"""The doctor against services that are well, refuse us, are of another version, or are not there."""

import json
import re
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata

import pytest

from flows import doctor_services
from flows.commands.machine import _doctor
from flows.config import resolve
from flows.doctor_services import ports, services
from flows.doctor_weights import weights
from flows.findings import Finding, as_json, say
from flows.services import free_port


@pytest.fixture
def server(monkeypatch):
    """A server whose answers a test sets: path prefix -> (status, body); `hours` sets its clock off."""

    class Handler(BaseHTTPRequestHandler):
        answers: dict = {}
        hours = 0
        logins: list = []

        def do_GET(self):
            self.logins.append(self.headers.get("Authorization"))
            found = next((a for path, a in self.answers.items() if self.path.startswith(path)), (404, "none"))
            self.send_response_only(found[0])
            self.send_header("Date", formatdate(self.hours * 3600 + __import__("time").time(), usegmt=True))
            self.end_headers()
            self.wfile.write(found[1].encode())

        def log_message(self, *words):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{http.server_port}"
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    yield Handler
    http.shutdown()


def look(**settings) -> dict[str, Finding]:
    return {finding.subject: finding for finding in services(resolve("portraits", settings, name="x"))}


def team(server, monkeypatch) -> dict[str, Finding]:
    monkeypatch.setenv("PREFECT_API_URL", f"{server.url}/api")
    return look(
        tracking={"uri": server.url},
        runner={"kind": "ray-job", "ray_address": server.url},
    )


def test_without_services_all_is_well_on_a_laptop(server):
    found = look()
    assert set(found) == {"Prefect", "MLflow", "Ray", "clock"}
    assert not any(finding.mend for finding in found.values())


def test_services_that_are_well(server, monkeypatch):
    server.answers = {
        "/api/admin/version": (200, json.dumps(metadata.version("prefect"))),
        "/api/2.0/mlflow": (200, "{}"),
        "/api/version": (200, json.dumps({"ray_version": metadata.version("ray")})),
    }
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:p")
    found = team(server, monkeypatch)
    assert [finding.mend for finding in found.values()] == [""] * 4
    assert re.match("[01] s from the servers'", found["clock"].found)  # servers tell whole seconds
    assert {"Bearer t", "Basic YWRtaW46cA=="} <= set(server.logins)


def test_services_that_refuse_us_are_told_from_those_that_are_away(server, monkeypatch):
    server.answers = {"/": (401, "no")}
    found = team(server, monkeypatch)
    assert found["Prefect"].mend == "set PREFECT_API_AUTH_STRING to user:password"
    assert "MLFLOW_TRACKING_USERNAME" in found["MLflow"].mend
    assert "RAY_AUTH_TOKEN" in found["Ray"].mend
    server.url = f"http://127.0.0.1:{free_port()}"
    for name in ("Prefect", "MLflow", "Ray"):
        assert team(server, monkeypatch)[name].mend == "start it, or correct its address"


def test_other_versions_and_a_wrong_clock_are_found(server, monkeypatch):
    server.answers = {
        "/api/admin/version": (200, '"3.0.0"'),
        "/api/2.0/mlflow": (404, "{}"),
        "/api/version": (200, '{"ray_version": "2.0.0"}'),
    }
    server.hours = -2
    found = team(server, monkeypatch)
    assert "must be of one version" in found["Prefect"].mend
    assert found["MLflow"].mend == ""  # it answered that there is no such experiment
    assert metadata.version("ray") in found["Ray"].mend
    assert "set the clock" in found["clock"].mend


def test_a_port_that_something_else_holds(server, monkeypatch):
    port = int(server.url.rsplit(":", 1)[1])
    monkeypatch.setattr(doctor_services, "PORTS", {port: "Prefect", free_port(): "MLflow"})
    held, free = ports()
    assert (held.found, free.found) == ("held by something else", "free")
    assert "--prefect-port" in held.mend
    server.answers = {"/api/health": (200, "true")}
    assert next(ports()).mend == ""


def test_weights_are_named_with_their_licences():
    found = {finding.subject: finding for finding in weights(resolve("sd15", name="x"))}
    assert "OpenRAIL" in found["base model"].found
    assert "research" in found["face parser"].found
    assert "unpack a model pack" in found["detector"].mend
    assert found["identity net"].mend
    ours = {finding.subject: finding for finding in weights(resolve("portraits", name="x"))}
    assert "Apache-2.0" in ours["base model"].found
    assert "Apache-2.0" in ours["identity net"].found
    assert not any(finding.mend for finding in ours.values())


def test_scripts_get_json_and_an_exit_code(monkeypatch, capsys):
    from argparse import Namespace

    from flows import doctor

    monkeypatch.setattr(doctor, "examine", lambda *words: [Finding("disk", "full", "make room")])
    assert _doctor(Namespace(profile="portraits", settings=[], json=True)) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"subject": "disk", "found": "full", "mend": "make room", "ok": False}
    ]
    monkeypatch.setattr(doctor, "examine", lambda *words: [Finding("disk", "empty")])
    assert _doctor(Namespace(profile="portraits", settings=[], json=False)) == 0
    assert "all well" in capsys.readouterr().out
    assert "mend: make room" in say([Finding("disk", "full", "make room")])
    assert json.loads(as_json([Finding("disk", "empty")]))[0]["ok"]
