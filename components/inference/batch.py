"""A batch of requests -> pictures and a ledger, by Ray Data actors. Nothing is lost, nothing is done twice.

Each request ends exactly once a run: done, failed with a reason, blocked by the base's safety checker, or
skipped because it was done before. A
rerun, also after a kill, draws only what is missing, has changed or has failed; what was drawn for the same
request, photo and model stays.
"""

import io
import json
import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core import (
    Personalization,
    Progress,
    RuntimeConfig,
    SharedStore,
    ray_session,
    remove_halves,
    sha256_file,
    write_bytes_atomic,
)
from components.face import FaceConfig
from components.inference.config import BatchConfig
from components.inference.ledger import Ledger, LedgerRow
from components.inference.people import CardStore
from components.inference.requests import ReadLine, read_requests
from components.model import ModelConfig

if TYPE_CHECKING:
    from components.inference.worker import Fault

logger = logging.getLogger(__name__)
PICTURES, THUMBNAILS = "pictures", "thumbnails"


def personalize_batch(
    *,
    config: BatchConfig,
    face: FaceConfig,
    model: ModelConfig,
    runtime: RuntimeConfig,
    adapter: Path,
    model_uri: str,
    requests: Path | str,
    folder: Path,
    people: Path | None = None,
    store: SharedStore | None = None,
) -> Personalization:
    """Works off a batch of requests.

    Args:
        config: Limits, defaults, workers.
        face: Detector and mask, as in preparation.
        model: Where the base and its image encoder are; the adapter knows its own switches.
        runtime: Device, dtype and Ray.
        adapter: The adapter's safetensors file, its JSON beside it.
        model_uri: `models:/photoverse/<version>` that it came from, for pictures and record.
        requests: JSONL, CSV or Parquet file, or an inbox of such files (see `request_files.py`).
        folder: Gets `pictures/<id>-<k>.png` (from an inbox `pictures/<file>/<id>-<k>.png`), thumbnails and
            `ledger.jsonl`.
        people: Folder of the kept cards and the audit log; None knows no cards.
        store: What the nodes share where they share no folders: workers take adapter and cards from it.

    Returns:
        The record: requests = done + failed; `skipped` of the done ones were there already.

    Raises:
        ValueError: The requests or the adapter are missing or damaged, or another batch works in the folder.
    """
    if not adapter.is_file():
        raise ValueError(f"no adapter at {adapter}")
    cards = None if people is None else CardStore(people)
    if cards is not None:
        cards.sweep()
    ledger = Ledger(folder)
    with ledger.alone():
        for part in (PICTURES, THUMBNAILS):
            remove_halves(folder / part)
        identity = {"adapter": sha256_file(adapter), "face": face.model_dump(mode="json")}
        lines = read_requests(requests, config, identity, cards)
        settings = {
            "batch": config.model_dump(mode="json"),
            "face": face.model_dump(mode="json"),
            "model": model.model_dump(mode="json"),
            "runtime": runtime.model_dump(mode="json"),
            "model_uri": model_uri,
            "store": None if store is None else store.model_dump(mode="json"),
        }
        rows = _work_off(lines, ledger, config, runtime, adapter, settings, cards)
    return _record(rows, ledger, model_uri)


def _work_off(
    lines: list[ReadLine],
    ledger: Ledger,
    config: BatchConfig,
    runtime: RuntimeConfig,
    adapter: Path,
    settings: dict[str, Any],
    cards: CardStore | None,
) -> list[LedgerRow]:
    """Brings each request to its end, a ledger row each as soon as it is there."""
    run = uuid.uuid4().hex[:12]
    rows: dict[int, LedgerRow] = {}

    def settle(number: int, row: LedgerRow) -> None:
        rows[number] = row.model_copy(update={"run": run})
        ledger.append(rows[number])

    for number, row in _known(lines, ledger).items():
        settle(number, row)
    pending = [number for number in range(len(lines)) if number not in rows]
    with Progress("personalize", len(pending), "requests") as progress:
        for number, result in _draw(lines, pending, config, runtime, adapter, settings):
            settle(number, _finish(lines[number], result, ledger.folder, config.thumbnail_px))
            _tell(cards, lines[number], rows[number])
            progress.advance()
    return [rows[number] for number in range(len(lines))]


def _known(lines: list[ReadLine], ledger: Ledger) -> dict[int, LedgerRow]:
    """Rows that need no drawing, by the request's place in the list: done by an earlier run, or at fault."""
    done = ledger.done()
    rows = {}
    for number, line in enumerate(lines):
        if line.error is not None:
            rows[number] = _row(line, status="failed", error=line.error)
        elif line.hash in done and done[line.hash].files == _files(line):
            before = done[line.hash]
            rows[number] = _row(line, status="skipped", files=before.files, thumbnail=before.thumbnail)
    return rows


def _row(line: ReadLine, **values: Any) -> LedgerRow:
    """Returns a ledger row about the request."""
    about = {"line": line.line, "id": line.id, "source": line.source, "person": line.person}
    return LedgerRow.model_validate(about | {"request_hash": line.hash} | values)


def _files(line: ReadLine) -> tuple[str, ...]:
    assert line.request is not None
    return tuple("/".join(filter(None, (PICTURES, line.source, file))) for file in line.request.files)


def _finish(line: ReadLine, result: "list[bytes] | Fault", folder: Path, thumbnail_px: int) -> LedgerRow:
    """Writes the pictures of a request, and returns its row."""
    if not isinstance(result, list):
        return _row(line, status=result.status, error=result.words)
    files, thumbnail = _files(line), ""
    for file, png in zip(files, result, strict=True):
        write_bytes_atomic(folder / file, png)
    if thumbnail_px:
        thumbnail = THUMBNAILS + files[0].removeprefix(PICTURES).removesuffix(".png") + ".jpg"
        write_bytes_atomic(folder / thumbnail, _thumbnail(result[0], thumbnail_px))
    return _row(line, status="done", files=files, thumbnail=thumbnail)


def _thumbnail(png: bytes, side: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB")
        small.thumbnail((side, side))
        small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _tell(cards: CardStore | None, line: ReadLine, row: LedgerRow) -> None:
    """Writes the use of a kept card into the audit log."""
    if cards is not None and row.status == "done" and line.request is not None and line.request.card:
        cards.audit.add("used", line.person, line.request.card, "batch", len(row.files))


def full_slices(lines: list[ReadLine], pending: list[int], size: int) -> list[list[int]]:
    """Groups requests to slices of `size` pictures that can be denoised together.

    Args:
        lines: All requests.
        pending: Places in the list of those to draw.
        size: Pictures of a full batch; a request of more has a slice of its own.
    """
    from components.inference.conditions import shared_key

    slices: list[list[int]] = []
    open_slices: dict[Any, tuple[list[int], int]] = {}  # by what must be shared: (slice, its pictures)
    for number in pending:
        line = lines[number]
        assert line.request is not None
        key, pictures = shared_key(line.dials), line.request.num_images
        slice_, filled = open_slices.get(key, ([], 0))
        if not slice_ or filled + pictures > size:
            slice_, filled = [], 0
            slices.append(slice_)
        slice_.append(number)
        open_slices[key] = (slice_, filled + pictures)
    return slices


def _draw(
    lines: list[ReadLine],
    pending: list[int],
    config: BatchConfig,
    runtime: RuntimeConfig,
    adapter: Path,
    settings: dict[str, Any],
) -> "Iterator[tuple[int, list[bytes] | Fault]]":
    """Yields each pending request's place with its PNG files or its fault, in the order they are finished."""
    if not pending:
        return
    from components.inference.worker import Fault

    left = set(pending)
    slices = full_slices(lines, pending, config.batch_size)
    work = [json.dumps([_work(number, lines[number]) for number in slice_]) for slice_ in slices]
    with ray_session(runtime):
        for row in _ray_rows(work, config, runtime, adapter, settings):
            number, fault = int(row["number"]), Fault(row["error"], row["status"])
            left.discard(number)
            yield number, fault if fault.words else [bytes(png) for png in row["pngs"]]
    for number in sorted(left):  # cannot happen as long as Ray Data loses no row; a request must never vanish
        yield number, Fault("internal fault: the workers gave no answer")


def _work(number: int, line: ReadLine) -> dict[str, Any]:
    """What a worker needs to know of a request; it travels as JSON, for Arrow would guess nested types."""
    assert line.request is not None
    values = line.request.model_dump(
        mode="json", include={"id", "prompt", "negative_prompt", "seed", "num_images", "consent"}
    )
    places = {"photos": line.photo_places, "card": line.card_path}
    return values | places | {"number": number, "dials": line.dials.model_dump(mode="json")}


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
    workers = min(config.workers or max(1, int(room)), len(work))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    dataset = ray.data.from_items([{"work": text} for text in work], override_num_blocks=len(work))
    drawn = dataset.map_batches(
        PictureWorker,
        fn_constructor_args=(str(adapter.resolve()), settings),
        batch_size=1,  # a row is a slice: a full batch of pictures
        batch_format="pyarrow",
        concurrency=workers,
        num_cpus=1,
        num_gpus=1 if on_gpu else 0,
    )
    return drawn.iter_rows()


def _record(rows: list[LedgerRow], ledger: Ledger, model_uri: str) -> Personalization:
    count = Counter(row.status for row in rows)
    done = count["done"] + count["skipped"]
    return Personalization(
        count_in=len(rows),
        count_out=done,
        folder=str(ledger.folder),
        ledger=str(ledger.path),
        requests=len(rows),
        done=done,
        failed=count["failed"] + count["blocked"],
        blocked=count["blocked"],
        skipped=count["skipped"],
        model_uri=model_uri,
    )
