"""What a caller gets to see: pictures, or a line on what went wrong. Never the photo or a stack trace."""

import base64
import logging
import time
import uuid
from typing import Any

from components.registry.engine import Drawn
from components.registry.request import Request

logger = logging.getLogger(__name__)


def answer_of(drawn: Drawn, request: Request, model_version: str) -> dict[str, Any]:
    """Returns the answer that a caller gets: PNG files as base64, seeds, version, timings, similarity."""
    from components.inference import encode_png

    start = time.perf_counter()
    pictures = [base64.b64encode(encode_png(picture)).decode("ascii") for picture in drawn.pictures]
    seconds = drawn.seconds | {"encoding": time.perf_counter() - start}
    answer = {
        "pictures": pictures,
        "seeds": request.seeds,
        "model_version": model_version,
        "timings": {name: round(value, 4) for name, value in seconds.items()},
    }
    return answer | ({"similarity": list(drawn.similarity)} if drawn.similarity is not None else {})


def log_fault(error: Exception) -> str:
    """Writes a fault of ours to the log, and returns the line that the caller gets: an ID, no more."""
    mark = uuid.uuid4().hex[:12]
    logger.error("fault %s", mark, exc_info=error)
    return f"internal fault {mark}: the server's log has the rest"


def one_line(text: str, most: int = 300) -> str:
    """Returns the text in one line of at most `most` characters, its middle left out if need be."""
    line = " ".join(text.split())
    half = (most - 5) // 2
    return line if len(line) <= most else f"{line[:half]} ... {line[-half:]}"
