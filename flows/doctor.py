"""`photoverse doctor`: what this machine and this installation lack, each finding with its mend.

Here: what is looked at, and the machine itself. Services and weights are in files of their own.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from flows.config import resolve
from flows.doctor_services import ports, services
from flows.doctor_weights import weights
from flows.environment import PROJECT, cores
from flows.findings import Finding, as_json, say

__all__ = ["Finding", "as_json", "examine", "say"]

GIB = 2**30
MIN_FREE_DISK_GIB, MIN_MEMORY_GIB = 3, 8
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
Looks = Callable[[], Iterator[Finding]]


def examine(profile: str = "portraits", settings: Mapping[str, Any] | None = None) -> list[Finding]:
    """Looks at everything and returns what was found; a look that fails is a finding too.

    Args:
        profile: Whose weights and services to look for.
        settings: Values over the profile's.
    """
    looks: dict[str, Looks] = {
        "Python": _python, "packages": _versions, "C++ compiler": _compiler, "free disk": _disk,
        "memory": _memory, "devices": _devices, "ports": ports,
        "weights": lambda: weights(resolve(profile, settings, name="doctor")),
        "services": lambda: services(resolve(profile, settings, name="doctor")),
    }  # fmt: skip
    findings: list[Finding] = []
    for subject, look in looks.items():
        try:
            findings += look()
        except Exception as error:  # noqa: BLE001 - a doctor must not fall ill
            findings.append(Finding(subject, f"{type(error).__name__}: {error}", "see the message"))
    return findings


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
    total = memory.total
    with_limit = CGROUP_MEMORY.read_text().strip() if CGROUP_MEMORY.is_file() else "max"
    if with_limit.isdigit():
        total = min(total, int(with_limit))
    enough = total / GIB >= MIN_MEMORY_GIB - 0.5
    mend = "" if enough else f"the demo needs {MIN_MEMORY_GIB} GiB (docker run --memory)"
    yield Finding(
        "memory", f"{total / GIB:.1f} GiB, {memory.available / GIB:.1f} free; {cores()} cores", mend
    )


def _devices() -> Iterator[Finding]:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    driver = _driver()
    if names:
        yield Finding("devices", f"{', '.join(names)}; driver {driver or 'unknown'}")
    elif driver:
        build = torch.version.cuda is None
        mend = "install the CUDA build of torch, or use the CPU" if build else "update the driver"
        yield Finding(
            "devices",
            f"driver {driver}, but torch {torch.__version__} sees no GPU",
            f"{mend}, or use the CPU",
        )
    else:
        yield Finding("devices", "CPU only (enough for the portraits profile)")


def _driver() -> str | None:
    """Returns the version of NVIDIA's driver, None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split("\n")[0].strip() or None if done.returncode == 0 else None
