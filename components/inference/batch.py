"""A file of requests -> pictures and a ledger, by Ray Data actors. Nothing is lost, nothing is done twice.

Each request ends exactly once, as pictures or as an error row. A rerun draws only what is missing, has
changed or has failed; what was drawn for the same request, photo and model stays.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from components.core import (
    Personalization,
    Progress,
    RuntimeConfig,
    ray_session,
    sha256_file,
    write_bytes_atomic,
)
from components.face import FaceConfig
from components.inference.config import BatchConfig
from components.inference.ledger import Ledger, LedgerRow
from components.inference.requests import ReadLine, read_requests
from components.model import ModelConfig

logger = logging.getLogger(__name__)
PICTURES = "pictures"


def personalize_batch(
    *,
    config: BatchConfig,
    face: FaceConfig,
    model: ModelConfig,
    runtime: RuntimeConfig,
    adapter: Path,
    model_uri: str,
    requests: Path,
    folder: Path,
) -> Personalization:
    """Works off a file of requests.

    Args:
        config: Limits, defaults, workers.
        face: Detector and mask, as in preparation.
        model: Where the base and its image encoder are; the adapter knows its own switches.
        runtime: Device, dtype and Ray.
        adapter: The adapter's safetensors file, its JSON beside it.
        model_uri: `models:/photoverse/<version>` that it came from, for pictures and record.
        requests: JSONL file, one request a line (see `requests.py`).
        folder: Gets `pictures/<id>-<k>.png` and `ledger.jsonl`.

    Returns:
        The record: requests = done + failed; `skipped` of the done ones were there already.

    Raises:
        ValueError: The requests file or the adapter is missing or damaged.
    """
    if not adapter.is_file():
        raise ValueError(f"no adapter at {adapter}")
    identity = {"adapter": sha256_file(adapter), "face": face.model_dump(mode="json")}
    lines = read_requests(requests, config, identity)
    ledger = Ledger(folder)
    rows = _known(lines, ledger)
    skipped = sum(row.status == "done" for row in rows.values())
    pending = [line for line in lines if line.line not in rows]
    settings = {
        "batch": config.model_dump(mode="json"),
        "face": face.model_dump(mode="json"),
        "model": model.model_dump(mode="json"),
        "runtime": runtime.model_dump(mode="json"),
        "model_uri": model_uri,
    }
    with Progress("personalize", len(pending), "requests") as progress:
        for line, result in _draw(pending, config, runtime, adapter, settings):
            rows[line.line] = _settle(line, result, folder)
            ledger.append(rows[line.line])
            progress.advance()
    settled = [rows[line.line] for line in lines]
    path = ledger.finish(settled)
    return _record(settled, skipped, path, folder, model_uri)


def _known(lines: list[ReadLine], ledger: Ledger) -> dict[int, LedgerRow]:
    """Rows that need no drawing: done by an earlier run, or at fault."""
    done = ledger.done()
    rows = {}
    for line in lines:
        if line.error is not None:
            rows[line.line] = LedgerRow(line=line.line, id=line.id, status="failed", error=line.error)
        elif line.hash in done and done[line.hash].files == _files(line):
            rows[line.line] = done[line.hash].model_copy(update={"line": line.line, "id": line.id})
    return rows


def _files(line: ReadLine) -> tuple[str, ...]:
    assert line.request is not None
    return tuple(f"{PICTURES}/{file}" for file in line.request.files)


def _settle(line: ReadLine, result: list[bytes] | str, folder: Path) -> LedgerRow:
    """Writes the pictures of a request, and returns its row."""
    facts: dict[str, Any] = {"line": line.line, "id": line.id, "request_hash": line.hash}
    if isinstance(result, str):
        return LedgerRow(**facts, status="failed", error=result)
    for file, png in zip(_files(line), result, strict=True):
        write_bytes_atomic(folder / file, png)
    return LedgerRow(**facts, status="done", files=_files(line))


def _draw(
    pending: list[ReadLine],
    config: BatchConfig,
    runtime: RuntimeConfig,
    adapter: Path,
    settings: dict[str, Any],
) -> Iterator[tuple[ReadLine, list[bytes] | str]]:
    """Yields each pending request with its PNG files or its error, in the order they are finished."""
    if not pending:
        return
    by_line = {line.line: line for line in pending}
    with ray_session(runtime):
        for row in _ray_rows([_work(line) for line in pending], config, runtime, adapter, settings):
            error = str(row["error"])
            yield by_line.pop(int(row["line"])), error or [bytes(png) for png in row["pngs"]]
    for (
        line
    ) in by_line.values():  # cannot happen as long as Ray Data loses no row; a request must never vanish
        yield line, "internal fault: the workers gave no answer"


def _work(line: ReadLine) -> str:
    """What a worker needs to know of a request, as JSON: Arrow would guess types of nested columns."""
    assert line.request is not None
    values = line.request.model_dump(
        mode="json", include={"id", "prompt", "negative_prompt", "seed", "num_images", "consent"}
    )
    return json.dumps(
        values | {"line": line.line, "photos": line.photo_paths, "dials": line.dials.model_dump(mode="json")}
    )


def _ray_rows(
    work: list[str], config: BatchConfig, runtime: RuntimeConfig, adapter: Path, settings: dict[str, Any]
) -> Iterable[dict[str, Any]]:
    import ray

    from components.core import pick_device
    from components.inference.worker import PictureWorker

    resources = ray.cluster_resources()
    on_gpu = pick_device(runtime.device).type == "cuda" or (
        runtime.device == "auto" and resources.get("GPU", 0) > 0
    )
    room = resources.get("GPU", 0) if on_gpu else resources.get("CPU", 1) // 2
    slices = -(-len(work) // config.batch_size)
    workers = min(config.workers or max(1, int(room)), slices)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    dataset = ray.data.from_items([{"work": text} for text in work], override_num_blocks=slices)
    drawn = dataset.map_batches(
        PictureWorker,
        fn_constructor_args=(str(adapter.resolve()), settings),
        batch_size=config.batch_size,
        batch_format="pyarrow",
        concurrency=workers,
        num_cpus=1,
        num_gpus=1 if on_gpu else 0,
    )
    return drawn.iter_rows()


def _record(rows: list[LedgerRow], skipped: int, path: Path, folder: Path, model_uri: str) -> Personalization:
    done = sum(row.status == "done" for row in rows)
    return Personalization(
        count_in=len(rows),
        count_out=done,
        folder=str(folder),
        ledger=str(path),
        requests=len(rows),
        done=done,
        failed=len(rows) - done,
        skipped=skipped,
        model_uri=model_uri,
    )
