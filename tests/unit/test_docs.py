"""Every command in docs/ is run here, is run by a test that it names, or says why it is not."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import build_parser
from flows.environment import PROJECT, child_environment

PAGES = sorted((PROJECT / "docs").glob("*.md"))


def commands() -> list[tuple[str, str, str]]:
    """Returns (page, command, comment) of every line in a block of shell."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            for line in filter(None, block.splitlines()):
                command, _, comment = line.partition("  # ")
                found.append((page.name, command.strip(), comment.strip()))
    return found


ALL = commands()
HERE = [c for c in ALL if not c[2].startswith(("run by ", "not run here: "))]


def test_the_pages_are_there():
    assert {"OPERATOR.md", "RESEARCHER.md", "CONTRIBUTOR.md", "SCALE.md"} <= {page.name for page in PAGES}
    assert len(ALL) > 20
    assert len(HERE) >= 4


@pytest.mark.parametrize(("page", "command", "comment"), ALL, ids=[c[1][:50] for c in ALL])
def test_a_command_exists_and_says_by_whom_it_is_run(page, command, comment):
    words = shlex.split(command)
    if words[0] == "photoverse":
        build_parser().parse_args(words[1:])  # a wrong option ends in SystemExit
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (PROJECT / "Makefile").read_text(), re.M)
    for path in re.findall(r"(?:tests|infra|components|flows)/[\w./-]+\.\w+", f"{command} {comment}"):
        assert (PROJECT / path).exists() or path.endswith("/.env"), path
    if comment.startswith("not run here:"):
        assert len(comment) > len("not run here: ") + 3


@pytest.mark.parametrize(("page", "command", "comment"), HERE, ids=[c[1][:50] for c in HERE])
def test_it_runs(page, command, comment):
    words = shlex.split(command)
    assert words[0] == "photoverse", f"{page}: {command}: say what runs it, or why it is not run"
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words[1:]], cwd=PROJECT, env=child_environment(),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    allowed = {0, 1} if words[1] == "doctor" else {0}  # a doctor may find something on a test machine
    assert done.returncode in allowed, done.stdout + done.stderr
    assert done.stdout


def test_paths_in_the_text_exist():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:components|flows|infra|tests|docs)/[\w./-]+)`", text):
            assert (PROJECT / Path(path)).exists(), f"{page.name}: {path}"
