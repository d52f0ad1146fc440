"""What all tests share: nothing calls home, one thread, fixed seeds, one Ray for the whole session."""

import io
import os
import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

# Before any import that reads them: libraries look at these once.
OFFLINE = {
    "DO_NOT_TRACK": "true",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask by gRPC first, which no small server speaks
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
for name, value in {**OFFLINE, "OMP_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries draw from the legacy generator too
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A Ray of two CPUs; starting one takes 8-18 s, so the session shares it. `ray_session` joins it."""
    from components.core import RuntimeConfig, ray_session

    with ray_session(RuntimeConfig(num_cpus=2)):
        yield


@pytest.fixture(scope="session")
def as_bytes() -> Callable[..., bytes]:
    def encode(picture: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
        buffer = io.BytesIO()
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture(scope="session")
def png_header() -> Callable[[int, int], bytes]:
    """Returns a function that makes a PNG which claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def make(width: int, height: int) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + body

    return make
