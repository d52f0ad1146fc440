"""Nothing calls home: with name resolution blocked, all modules load and a flow runs."""

import os
import subprocess
import sys

import pytest

from flows.environment import PROJECT, QUIET

IMPORTS = """
import importlib, pkgutil, sys
import components, flows
for package in (components, flows):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith(("__main__", "serve_script")):
            importlib.import_module(module.name)
print("imported", len([name for name in sys.modules if name.startswith(("components.", "flows."))]))
"""


def run_blocked(words: list[str], blocked: dict[str, str], timeout_s: float) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in QUIET}
    environment |= blocked | {"HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, *words], cwd=PROJECT, env=environment,
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_block_itself_works(tmp_path):
    from tests.integration.conftest import BLOCKED

    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    blocked = {"PYTHONPATH": str(tmp_path), "BLOCKED_NAMES_LOG": str(tmp_path / "log")}
    script = (
        "import socket\ntry: socket.getaddrinfo('example.org', 80)\nexcept socket.gaierror: print('refused')"
    )
    assert run_blocked(["-c", script], blocked, 60) == "refused\n"
    assert (tmp_path / "log").read_text() == "example.org\n"


def test_every_module_loads_without_a_name_being_resolved(blocked_names):
    printed = run_blocked(["-c", IMPORTS], blocked_names, 900)
    assert int(printed.split()[-1]) > 50


@pytest.mark.timeout(1800)
def test_a_flow_runs_without_a_name_being_resolved(blocked_names, tiny_profile, tmp_path):
    """photoverse/prepare in a process of its own: Prefect's own server, a stage process, Ray Data."""
    script = (
        "from flows.environment import prepare_environment; prepare_environment()\n"
        "from flows.prepare import prepare\n"
        f"settings = {{'root': {str(tmp_path)!r}}}\n"
        f"records = prepare(profile={str(tiny_profile)!r}, name='offline', overrides=settings)\n"
        "print(records['prepare']['count_out'])"
    )
    blocked = blocked_names | {"PREFECT_HOME": str(tmp_path / "prefect")}
    assert int(run_blocked(["-c", script], blocked, 1700).split()[-1]) > 0
