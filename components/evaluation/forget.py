"""Forgetting a person in evaluations: the photos and pictures of the person, and pages that show them.

The figures stay: means over many people, and a row of numbers a picture. A page that went is written anew
when its run is evaluated again.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.evaluation.generate import safe_name

PAGES = ("report.html", "faces.png", "ablation.html")
FOLDERS = ("people", "references")


def pictures_of(person: str, places: Iterable[Path]) -> list[Path]:
    """Returns the files below the places that show the person in an evaluation.

    Args:
        person: As the report names it, with or without its source (`faces/ada`, `ada`).
        places: Folders of runs, and of what they logged.
    """
    found: set[Path] = set()
    for report in sorted({path for at in places for path in at.rglob("report.json")}):
        for name in _named(report, person):
            shown = report.parent.rglob(f"{safe_name(name)}-*.png")
            found |= {path for path in shown if FOLDERS[0] in path.parts or FOLDERS[1] in path.parts}
            found |= {report.parent / page for page in PAGES}
            found.add(report.parent.parent / PAGES[2])  # the table of an ablation shows each variant's
    return sorted(path for path in found if path.is_file())


def forget_pictures(person: str, places: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Removes them, and looks again; returns (removed, still there)."""
    places = list(places)
    found = pictures_of(person, places)
    for path in found:
        path.unlink(missing_ok=True)
    left = pictures_of(person, places)
    return [path for path in found if path not in left], left


def _named(report: Path, person: str) -> set[str]:
    """Returns what a report calls the person; empty where it does not name them."""
    try:
        values: Any = json.loads(report.read_text(encoding="utf-8"))
        rows = values.get("pictures") or [] if isinstance(values, dict) else []
        names = {str(row.get("person", "")) for row in rows}
    except (OSError, ValueError, AttributeError):
        return set()
    return {name for name in names if person in (name, name.rpartition("/")[2])}
