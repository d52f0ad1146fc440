"""A door that draws with a fake engine, and requests to it."""

import base64
import io

import httpx
import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Route

from components.registry import Drawn, ServingLimits
from components.serving import Door

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]
LIMITS = ServingLimits(photo_bytes=100_000, photo_pixels=1_000_000, pictures=4, steps=50)
PICTURE = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


def encoded(kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    PICTURE.resize(size).save(buffer, kind)
    return buffer.getvalue()


def good(**changed) -> dict:
    consent = {"person": "anna", "purpose": "a test", "given": "2026-01-01"}
    photo = base64.b64encode(encoded()).decode()
    return {"photo": photo, "consent": consent, "prompt": "a photo of S*", "seed": 3} | changed


async def invert(job) -> Drawn | Exception:
    """Draws the photo inverted; prompts may ask for faults."""
    if "bug" in job.request.prompt:
        return RuntimeError("weights of the unet are gone")
    if job.photo_uint8 is None:
        return ValueError("no card of that ID is kept here")
    if "no face" in job.request.prompt:
        return ValueError("no face found\nin the photo")
    return Drawn([Image.fromarray(255 - job.photo_uint8)] * job.request.pictures, seconds={"drawing": 0.1})


def client_of(door: Door) -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/{path:path}", door.answer, methods=METHODS)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door")
