"""`photoverse doctor`: what this machine and this installation lack, each finding with its mend."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from flows.environment import PROJECT, cores

GIB = 2**30
BASE_PARTS = ("model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler")
MIN_FREE_DISK_GIB, MIN_MEMORY_GIB = 3, 8


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: What was looked at.
        found: What was found.
        mend: What to do about it; empty when all is well.
    """

    subject: str
    found: str
    mend: str = ""


def examine(profile: str = "portraits") -> list[Finding]:
    """Looks at everything and returns what was found; a look that fails is a finding too."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python, _versions, _compiler, _disk, _memory, _devices, lambda: _weights(profile),
    )  # fmt: skip
    findings: list[Finding] = []
    for look in looks:
        try:
            findings += look()
        except Exception as error:  # noqa: BLE001 - a doctor must not fall ill
            findings.append(
                Finding(getattr(look, "__name__", "look"), f"{type(error).__name__}: {error}", "see above")
            )
    return findings


def say(findings: list[Finding]) -> str:
    """Returns the findings as lines for people."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'--' if finding.mend else 'ok'}  {finding.subject:<{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"    {'':<{width}}  mend: {finding.mend}")
    sick = sum(bool(finding.mend) for finding in findings)
    return "\n".join([*lines, f"{sick} to mend" if sick else "all well"])


def _python() -> Iterator[Finding]:
    right = sys.version_info[:2] == (3, 11)
    yield Finding(
        "Python", sys.version.split()[0], "" if right else "install Python 3.11 and run `make venv`"
    )


def _versions() -> Iterator[Finding]:
    """Compares what is installed with the lock, for the packages that the lock names."""
    wrong = []
    for line in (PROJECT / "infra" / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, equals, version = line.split("#")[0].strip().partition("==")
        if not equals:
            continue
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if found.split("+")[0] != version.split("+")[0]:
            wrong.append(f"{name} {found} (locked: {version})")
    yield Finding(
        "packages", "; ".join(wrong) or "as locked", "run `make venv` after removing .venv" if wrong else ""
    )


def _compiler() -> Iterator[Finding]:
    compiler = os.environ.get("CXX", "c++")
    path = shutil.which(compiler)
    yield Finding(
        "C++ compiler",
        path or f"{compiler}: none",
        "" if path else "apt-get install g++ (DeepSpeed needs it)",
    )
    ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    yield Finding("ninja", ninja or "none", "" if ninja else "run `make venv`")


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(PROJECT).free / GIB
    mend = "" if free >= MIN_FREE_DISK_GIB else f"make room: {MIN_FREE_DISK_GIB} GiB are needed"
    yield Finding("free disk", f"{free:.1f} GiB", mend)
    shm = Path("/dev/shm")
    if shm.is_dir() and (space := shutil.disk_usage(shm).free / GIB) < 0.5:
        yield Finding("/dev/shm", f"{space:.2f} GiB", "Ray keeps its objects there: docker run --shm-size=2g")


def _memory() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    enough = memory.total / GIB >= MIN_MEMORY_GIB - 0.5
    mend = "" if enough else f"the demo needs {MIN_MEMORY_GIB} GiB"
    yield Finding(
        "memory", f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} free; {cores()} cores", mend
    )


def _devices() -> Iterator[Finding]:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("devices", ", ".join(names) or "CPU only (enough for the portraits profile)")


def _weights(profile: str) -> Iterator[Finding]:
    from flows.config import resolve

    config = resolve(profile, name="doctor")
    base = PROJECT / config.model.base
    if base.is_dir():
        missing = [part for part in BASE_PARTS if not (base / part).exists()]
        mend = "" if not missing else "restore the folder, or `make base-model` for the portrait world's"
        yield Finding("base model", f"{base}" + (f" lacks {', '.join(missing)}" if missing else ""), mend)
    else:
        looks_local = config.model.base.startswith((".", "/", "components/"))
        mend = f"put the model's folder at {base}" if looks_local else ""
        yield Finding(
            "base model",
            f"{config.model.base}" + ("" if looks_local else " (from the hub at its first use)"),
            mend,
        )
