"""The bench harness: each figure is a ratio against a reference measured in the same run.

`make bench` runs this folder and writes `runs/bench.json`: {name: {value, reference, runs, ...}}.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.core import write_text_atomic

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "runs" / "bench.json"
MIN_RUNS = 5


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks everything here, so that `make test` leaves it out."""
    for item in items:
        if HERE in Path(item.fspath).parents:
            item.add_marker(pytest.mark.bench)


@pytest.fixture(scope="session")
def bench_results():
    """Collects figures and lays them over the file's at the end: those of other benchmarks stay."""
    figures: dict[str, dict[str, Any]] = {}
    yield figures
    if figures:
        known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
        write_text_atomic(RESULTS, json.dumps(dict(sorted({**known, **figures}.items())), indent=2) + "\n")


@pytest.fixture
def ratio(bench_results) -> Callable[..., float]:
    """Returns ratio(name, candidate, reference, runs=5, against="...") -> median of their times' ratio.

    The two are called in turns, the order changing each time, after one call of each that is not counted, so
    that warm caches, turbo clocks and a busy neighbour touch both alike.
    """

    def measure(
        name: str,
        candidate: Callable[[], Any],
        reference: Callable[[], Any],
        runs: int = MIN_RUNS,
        against: str = "",
    ) -> float:
        if runs < MIN_RUNS:
            raise ValueError(f"runs must be at least {MIN_RUNS}, found {runs}")
        candidate(), reference()
        pairs = []
        for number in range(runs):
            if number % 2:
                reference_s, candidate_s = seconds(reference), seconds(candidate)
            else:
                candidate_s, reference_s = seconds(candidate), seconds(reference)
            pairs.append((candidate_s, reference_s))
        return record(bench_results, name, pairs, against or getattr(reference, "__name__", "reference"))

    return measure


def seconds(work: Callable[[], Any]) -> float:
    """Returns the wall time of one call; the garbage of the one before is not on its bill."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def record(results: dict[str, Any], name: str, pairs: list[tuple[float, float]], against: str) -> float:
    """Keeps the median ratio of (candidate, reference) seconds under `name`, and returns it."""
    ratios = sorted(candidate / reference for candidate, reference in pairs)
    results[name] = {
        "value": round(statistics.median(ratios), 4),
        "reference": against,
        "runs": len(pairs),
        "low": round(ratios[0], 4),
        "high": round(ratios[-1], 4),
        "candidate_s": round(statistics.median(c for c, _ in pairs), 6),
        "reference_s": round(statistics.median(r for _, r in pairs), 6),
    }
    print(f"{name}: {results[name]['value']} x {against} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return results[name]["value"]
