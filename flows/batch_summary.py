"""The summary of a batch in Prefect's pages: counts, thumbnails, reasons; and its removal with a person."""

import base64
import os
from collections import Counter
from pathlib import Path

from components.core import Personalization
from components.inference import Ledger, LedgerRow
from flows.environment import PROJECT

BATCH_KEY = "personalize-summary"
THUMBNAILS, REASONS = 24, 50
"""How many of each are shown; the ledger has all."""


def batch_summary(record: Personalization) -> str:
    """Returns Markdown: counts, thumbnails of the last run's pictures, and why requests failed."""
    ledger = Ledger(PROJECT / record.folder)
    rows = ledger.rows()
    last = [row for row in rows if row.run == rows[-1].run] if rows else []
    new = record.done - record.skipped
    blocked = f" ({record.blocked} of them blocked by the safety checker)" if record.blocked else ""
    lines = [
        f"**{record.requests} requests**: {new} done, {record.skipped} skipped (done before), "
        f"{record.failed} failed{blocked}. Model `{record.model_uri}`, ledger `{ledger.path}`.",
        "",
        " ".join(_shown(ledger.folder, row) for row in _with_thumbnails(ledger.folder, last)[:THUMBNAILS]),
    ]
    failed = [row for row in last if row.status in ("failed", "blocked")]
    if failed:
        lines += ["", "| request | why it failed |", "|---|---|"]
        lines += [f"| {_cell(row.source, row.id)} | {_cell(row.error or '')} |" for row in failed[:REASONS]]
    if len(failed) > REASONS:
        lines += ["", f"and {len(failed) - REASONS} more in the ledger"]
    return "\n".join(lines)


def _with_thumbnails(folder: Path, rows: list[LedgerRow]) -> list[LedgerRow]:
    """Returns the rows whose thumbnail is there, new pictures first."""
    there = [row for row in rows if row.thumbnail and (folder / row.thumbnail).is_file()]
    return sorted(there, key=lambda row: row.status != "done")


def _shown(folder: Path, row: LedgerRow) -> str:
    data = base64.b64encode((folder / row.thumbnail).read_bytes()).decode()
    return f"![{_cell(row.id)}](data:image/jpeg;base64,{data})"


def _cell(*words: str) -> str:
    """Returns words that cannot leave their cell, for they came from whoever wrote the requests."""
    text = " ".join(word for word in words if word)
    return "".join(letter if letter.isalnum() or letter in " .,:;'-_/=()" else "?" for letter in text)[:200]


def drop_summaries(folders: list[Path]) -> Counter[str]:
    """Removes the summaries of batches from Prefect: they hold thumbnails of everybody of a night.

    Args:
        folders: Prefect's home, where a database of its own may lie.

    Returns:
        How many were "removed"; "unreachable" is 1 where Prefect should have been asked and did not answer.
    """
    if "PREFECT_API_URL" not in os.environ and not any((home / "prefect.db").is_file() for home in folders):
        return Counter()
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[BATCH_KEY]))
    found: Counter[str] = Counter()
    try:
        with get_client(sync_client=True) as client:
            while page := client.read_artifacts(artifact_filter=wanted, limit=100):
                for artifact in page:
                    client.delete_artifact(artifact.id)
                    found["removed"] += 1
    except Exception:  # noqa: BLE001 - whatever keeps it from answering, the caller must be told
        found["unreachable"] = 1
    return found
