"""The worker of a batch: loads the model once, then turns slices of requests into pictures.

A Ray Data actor, or a plain object. A fault of one request is its own error row; the others of its slice
are drawn all the same.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from PIL import Image

from components.core import RuntimeConfig, SharedStore
from components.face import FaceConfig
from components.inference.card import IdentityCard
from components.inference.config import BatchConfig, Dials
from components.inference.consent import Consent
from components.inference.photo_places import photo_bytes
from components.inference.provenance import encode_png
from components.inference.safety import Blocked, BlockedError
from components.model import ModelConfig

logger = logging.getLogger(__name__)
Row = dict[str, Any]
RESULT = pa.schema(
    [
        ("number", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("pngs", pa.list_(pa.binary())),
    ]
)


@dataclass(frozen=True)
class Fault:
    """Why a request has no pictures.

    Attributes:
        words: One line for the ledger.
        status: "blocked" by the base's safety checker; "failed" for anything else.
    """

    words: str
    status: Literal["failed", "blocked"] = "failed"


class PictureWorker:
    """Turns rows of requests into rows of PNG files.

    Args:
        adapter: Path of the adapter's safetensors file.
        settings: JSON-like values of the batch, face, model and runtime configs, the model's version, and the
            store that the nodes share, None where they share their folders.
    """

    def __init__(self, adapter: str, settings: dict[str, Any]) -> None:
        from components.inference.personalize import Personalizer

        self.config = BatchConfig.model_validate(settings["batch"])
        shared = settings.get("store")
        self._store = None if shared is None else SharedStore.model_validate(shared)
        for file in (Path(adapter), Path(adapter).with_suffix(".json")):
            self._fetch(file)
        self.personalizer = Personalizer.load(
            Path(adapter),
            ModelConfig.model_validate(settings["model"]),
            FaceConfig.model_validate(settings["face"]),
            RuntimeConfig.model_validate(settings["runtime"]),
            self.config.photo_rules,
            settings["model_uri"],
            provenance=self.config.provenance,
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Takes a batch with a column "work" (JSON lists of requests), gives rows of `RESULT`."""
        rows = [row for work in batch["work"].to_pylist() for row in json.loads(work)]
        drawn = self.draw(rows)
        columns = {
            "number": [row["number"] for row in rows],
            "status": [found.status if isinstance(found, Fault) else "done" for found in drawn],
            "error": [found.words if isinstance(found, Fault) else "" for found in drawn],
            "pngs": [[] if isinstance(found, Fault) else found for found in drawn],
        }
        return pa.table(columns, schema=RESULT)

    def draw(self, rows: list[Row]) -> list[list[bytes] | Fault]:
        """Returns the PNG files of each row, or what is wrong with it."""
        cards = [self._guard(row, self._prepare) for row in rows]
        fit = [i for i, found in enumerate(cards) if not isinstance(found, Fault)]
        pictures = self._together([rows[i] for i in fit], [cards[i] for i in fit])
        for i, found in zip(fit, pictures, strict=True):
            cards[i] = found
        return cards

    def _together(self, rows: list[Row], cards: list[Any]) -> list[Any]:
        """Draws all rows at once; if that fails, each on its own, to find whose fault it is."""
        if not rows:
            return []
        try:
            images = self._generate(rows, cards)
        except Exception as error:  # noqa: BLE001 - whatever it is, only the row it belongs to may fail
            if len(rows) == 1:
                return [_fault(rows[0], error)]
            return [self._together([row], [card])[0] for row, card in zip(rows, cards, strict=True)]
        files = iter(images)
        return [_written([next(files) for _ in range(row["num_images"])]) for row in rows]

    def _generate(self, rows: list[Row], prepared: list[Any]) -> list[Any]:
        each = [(row, card, start, k) for row, (card, start) in zip(rows, prepared, strict=True)
                for k in range(row["num_images"])]  # fmt: skip
        return self.personalizer.generate_each(
            [card for _, card, _, _ in each],
            [row["prompt"] for row, _, _, _ in each],
            [(row["seed"] + k) % 2**32 for row, _, _, k in each],
            [Dials.model_validate(row["dials"]) for row, _, _, _ in each],
            [row["negative_prompt"] for row, _, _, _ in each],
            [start for _, _, start, _ in each],
            batch_size=self.config.batch_size,
        )

    def _prepare(self, row: Row) -> tuple[Any, Any]:
        """The row's identity card, and the picture it starts from if it has a strength."""
        if row["card"]:
            self._fetch(Path(row["card"]))
            return IdentityCard.load(Path(row["card"])), None
        max_mb = self.config.photo_rules.max_file_mb
        photos = [photo_bytes(place, max_mb) for place in row["photos"]]
        card = self.personalizer.card(photos, consent=Consent.model_validate(row["consent"]))
        return card, self.personalizer.start_image(photos[0]) if row["dials"]["strength"] else None

    def _fetch(self, file: Path) -> None:
        """Brings a file that another node has; what is here already never changes."""
        if self._store is not None and not file.is_file():
            self._store.fetch_file(file)

    def _guard(self, row: Row, do: Any) -> Any:
        try:
            return do(row)
        except Exception as error:  # noqa: BLE001 - as above
            return _fault(row, error)


def _written(images: list[Image.Image | Blocked]) -> list[bytes] | Fault:
    """The files of a request, or why there are none: it ends whole or not at all."""
    blocked = [image.seed for image in images if isinstance(image, Blocked)]
    if blocked:
        return Fault(str(BlockedError(blocked)), "blocked")
    return [encode_png(image) for image in images if not isinstance(image, Blocked)]


def _fault(row: Row, error: Exception) -> Fault:
    """For the ledger: the caller's faults as they are, ours by their kind (the log has all)."""
    if isinstance(error, ValueError):
        return Fault(" ".join(str(error).split())[:500] or "unknown fault")
    logger.error("request %s", row["id"], exc_info=error)
    return Fault(f"internal fault: {type(error).__name__}; the log has the rest")
