"""The doctor's looks at services: ports, Ray, Prefect, MLflow, and the clock against theirs."""

import base64
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import metadata

from flows.config import PipelineConfig
from flows.environment import PROJECT
from flows.findings import Finding

PORTS = {4200: "Prefect", 5000: "MLflow"}
"""The ports that `make services` takes first, and whose page is there."""

ANSWER_S = 5.0
MAX_SKEW_S = 60
REFUSALS = (401, 403)


@dataclass(frozen=True)
class Answer:
    """What an address said: the status (0 if nobody did), its words, and its time."""

    status: int
    text: str
    time: datetime | None = None


def ask(url: str, login: str | None = None, token: str | None = None) -> Answer:
    """Asks an address; no answer is an answer too."""
    headers = {}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=ANSWER_S) as found:
            return Answer(found.status, found.read(10_000).decode("utf-8", "replace"), _time(found.headers))
    except urllib.error.HTTPError as error:
        return Answer(error.code, str(error.reason), _time(error.headers))
    except (OSError, ValueError) as error:
        return Answer(0, str(getattr(error, "reason", error)))


def _time(headers: object) -> datetime | None:
    date = getattr(headers, "get", lambda name: None)("Date")
    try:
        return parsedate_to_datetime(date) if date else None
    except ValueError:
        return None


def services(config: PipelineConfig) -> Iterator[Finding]:
    """Looks at every service that this installation is told to use, and at the clock."""
    answers: list[Answer] = []
    yield from _prefect(answers)
    yield from _mlflow(config, answers)
    yield from _ray(config, answers)
    yield _clock(answers)


def ports() -> Iterator[Finding]:
    """Looks whether the ports of `make services` are free, or held by those services."""
    import socket

    for port, name in PORTS.items():
        with socket.socket() as probe:
            probe.settimeout(1)
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        path = "/api/health" if name == "Prefect" else "/health"
        ours = taken and ask(f"http://127.0.0.1:{port}{path}").status == 200
        found = f"{name} answers" if ours else "held by something else" if taken else "free"
        option = f"--{name.lower()}-port"
        mend = f"`photoverse services {option} N` takes another" if taken and not ours else ""
        yield Finding(f"port {port}", found, mend)


def _prefect(answers: list[Answer]) -> Iterator[Finding]:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        yield Finding("Prefect", "no server named (PREFECT_API_URL): each run starts one of its own")
        return
    answers.append(answer := ask(f"{url}/admin/version", os.environ.get("PREFECT_API_AUTH_STRING")))
    own = metadata.version("prefect")
    found = answer.text.strip('" \n')
    if answer.status == 200:
        mend = "" if found == own else f"install {own} there or {found} here: they must be of one version"
        yield Finding("Prefect", f"{url}: {found}", mend)
    else:
        yield _unreachable("Prefect", url, answer, "set PREFECT_API_AUTH_STRING to user:password")


def _mlflow(config: PipelineConfig, answers: list[Answer]) -> Iterator[Finding]:
    uri = config.tracking.uri
    if uri.startswith("sqlite:///"):
        file = PROJECT / uri.removeprefix("sqlite:///")
        folder = next(parent for parent in file.parents if parent.exists())
        writable = os.access(file if file.exists() else folder, os.W_OK)
        yield Finding("MLflow", str(file), "" if writable else f"make {folder} writable for this user")
        return
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{word}", "") for word in ("USERNAME", "PASSWORD"))
    login = f"{user}:{password}" if user else None
    answers.append(
        answer := ask(f"{uri}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default", login)
    )
    if answer.status in (200, 404):
        yield Finding("MLflow", uri)
    else:
        hint = "set MLFLOW_TRACKING_USERNAME and _PASSWORD; see the server's --allowed-hosts"
        yield _unreachable("MLflow", uri, answer, hint)


def _ray(config: PipelineConfig, answers: list[Answer]) -> Iterator[Finding]:
    address = config.runner.ray_address
    if not address:
        yield Finding("Ray", "no cluster named: each stage starts a Ray of its own")
        return
    answers.append(answer := ask(f"{address}/api/version", token=os.environ.get("RAY_AUTH_TOKEN")))
    if answer.status == 200:
        own = metadata.version("ray")
        same = f'"{own}"' in answer.text
        mend = "" if same else f"the cluster must run Ray {own} and Python of this version"
        yield Finding("Ray", f"{address}: {answer.text[:120]}", mend)
    else:
        yield _unreachable("Ray", address, answer, "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN")


def _unreachable(name: str, url: str, answer: Answer, login: str) -> Finding:
    if answer.status in REFUSALS:
        return Finding(name, f"{url} is up and refuses us ({answer.status})", login)
    said = answer.text if not answer.status else f"{answer.status} {answer.text}"
    return Finding(name, f"{url} does not answer: {said}", "start it, or correct its address")


def _clock(answers: list[Answer]) -> Finding:
    now = datetime.now(UTC)
    for answer in answers:
        if answer.time is not None:
            skew = abs((now - answer.time).total_seconds())
            mend = "set the clock (e.g. systemd-timesyncd): tokens and schedules go by it"
            return Finding("clock", f"{skew:.0f} s from the servers'", mend if skew > MAX_SKEW_S else "")
    newest = datetime.fromtimestamp((PROJECT / "pyproject.toml").stat().st_mtime, UTC)
    late = now < newest
    found = f"{now:%Y-%m-%d %H:%M} UTC" + (f", before this installation ({newest:%Y-%m-%d})" if late else "")
    return Finding("clock", found, "set the clock" if late else "")
