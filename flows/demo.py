"""`photoverse demo`: the portraits profile through photoverse/train and photoverse/personalize.

The demo is the ordinary flows with an ordinary profile. What is its own: requests made from photos of held-
out people, and `summary.json`.
"""

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

from components.core import write_bytes_atomic, write_text_atomic
from flows.environment import PROJECT, prepare_environment
from flows.progress import listening
from flows.terminal import Board, clock

PROMPTS = (
    "a photo of S*",
    "a photo of S*, smiling",
    "a photo of S* on a blue background",
    "a photo of S* with glasses",
)


def run_demo(
    profile: str = "portraits",
    name: str = "demo",
    root: str = "runs",
    overrides: dict[str, Any] | None = None,
) -> Path:
    """Runs the demo and returns the path of its summary.

    A second run keeps what is done and repeats only what has changed.
    """
    quiet_prefect()
    start = time.monotonic()
    print(f"PhotoVerse demo: profile {profile}, everything goes to {root}/{name}", flush=True)
    from flows.personalize import personalize
    from flows.pipeline import train

    settings = {"root": root} | (overrides or {})
    with Board() as board, listening(board):
        records = train(profile=profile, name=name, overrides=settings, resume=True)
        folder = PROJECT / root / name
        requests = write_requests(Path(records["portraits"]["folder"]), folder / "requests")
        records |= personalize(requests=str(requests), profile=profile, name=name, overrides=settings)
    summary = summarize(records, folder, seconds=time.monotonic() - start)
    path = folder / "summary.json"
    write_text_atomic(path, json.dumps(summary, indent=2) + "\n")
    print(say(summary, path))
    return path


def quiet_prefect() -> None:
    """Keeps Prefect's log off the terminal; call before Prefect is imported."""
    prepare_environment()
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")


def write_requests(people: Path, folder: Path, count: int = 4) -> Path:
    """Writes a request for each of the first held-out people, photos beside it; returns the file."""
    with (people / "metadata.csv").open(encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == "heldout"]
    first_photos = {row["identity"]: row for row in reversed(rows)}
    lines = []
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for number, (identity, row) in enumerate(sorted(first_photos.items())[:count]):
        photo = folder / "photos" / f"{identity}.png"
        write_bytes_atomic(photo, (people / row["file"]).read_bytes())
        request = {
            "id": identity,
            "photo": f"photos/{photo.name}",
            "prompt": PROMPTS[number % len(PROMPTS)],
            "seed": number,
            "consent": {"person": identity, "purpose": row["consent"]},
        }
        lines.append(json.dumps(request))
    write_text_atomic(folder / "requests.jsonl", "\n".join(lines) + "\n")
    return folder / "requests.jsonl"


def summarize(records: dict[str, dict[str, Any]], folder: Path, seconds: float) -> dict[str, Any]:
    """Returns the demo's figures from the records of its stages."""
    trained, report = records["train"], records["evaluate"]
    identity = report["identity"]
    return {
        "seconds": round(seconds, 1),
        "stages": {
            name: {"seconds": record["seconds"], "in": record["count_in"], "out": record["count_out"]}
            for name, record in records.items()
        },
        "train": {
            "reference_gain": trained["reference_gain"],
            "reference_gain_interval": trained["reference_gain_interval"],
            "steps": trained["step"],
            "losses": trained["losses"],
        },
        "evaluate": {
            "identity": {
                key: identity[key]
                for key in (
                    "generated",
                    "generated_interval",
                    "floor",
                    "base_alone",
                    "ceiling",
                    "retrieval_top1",
                )
            },
            "colour": report["colour"],
            "people": report["people"],
        },
        "promote": {key: records["promote"][key] for key in ("decision", "reasons", "model_uri")},
        "personalize": {
            key: records["personalize"][key] for key in ("requests", "done", "failed", "skipped")
        },
        "paths": {
            "run": str(folder),
            "report": report["report_html"],
            "shards": records["prepare"]["folder"],
            "adapter": trained["adapter"],
            "pictures": records["personalize"]["folder"],
            "ledger": records["personalize"]["ledger"],
            "logs": str(folder / "logs"),
        },
    }


def shown(value: float | None) -> str:
    """Returns a figure with two digits, or a dash where it could not be measured."""
    return "-" if value is None else f"{value:.2f}"


def say(summary: dict[str, Any], path: Path) -> str:
    """Returns the summary for people."""
    identity, gain = summary["evaluate"]["identity"], summary["train"]["reference_gain"]
    low, high = summary["train"]["reference_gain_interval"]
    batch, promotion = summary["personalize"], summary["promote"]
    lines = [
        "",
        f"Done in {clock(summary['seconds'])}.",
        f"  the right photo helps       {gain:+.1%} of the loss, against another person's photo "
        f"(95%: {low:+.1%} to {high:+.1%})",
        f"  identity of new people      {identity['generated']:.2f} (strangers {identity['floor']:.2f}, "
        f"base model alone {identity['base_alone']:.2f}, themselves {shown(identity['ceiling'])})",
        f"  found again among them      {identity['retrieval_top1']:.0%} first place, "
        f"{summary['evaluate']['people']} people",
        f"  the gate                    {promotion['decision']}",
        *(f"      {reason}" for reason in promotion["reasons"] if not reason.startswith("passed")),
        f"  personalized                {batch['done']} of {batch['requests']}, {batch['failed']} failed",
        "",
        f"  report    {summary['paths']['report']}",
        f"  pictures  {summary['paths']['pictures']}",
        f"  figures   {path}",
    ]
    return "\n".join(lines)
