"""The served model: requests in, pictures out, faults in one line.

`PhotoVerseService` is an MLflow pyfunc that is stored as code (`serve_script.py`). `mlflow models serve`
wants `{"inputs": [request, ...]}`; a request is described in `request.py`. The caller's faults are 400, our
own 500 with an id that the log knows; neither repeats the photo, and no stack trace leaves the process.
"""

import base64
import logging
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import yaml
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from numpy.typing import NDArray
from PIL import Image

from components.registry.config import ServingLimits
from components.registry.package import Package, read_package
from components.registry.request import Request, decode_photo, parse_requests

if TYPE_CHECKING:
    from components.inference import Personalizer

logger = logging.getLogger(__name__)


class ServiceError(MlflowException):
    """An answer to the caller whose message stays: MLflow's server would put the whole input before it."""

    @property
    def message(self) -> str:
        """The one line that the caller sees."""
        return self._message

    @message.setter
    def message(self, message: str) -> None:
        if not hasattr(self, "_message"):
            self._message = message


class Engine(Protocol):
    """Makes pictures of one person."""

    def __call__(self, photo_uint8: NDArray[np.uint8], request: Request) -> Sequence[Image.Image]:
        """Returns `request.pictures` pictures; raises ValueError where the photo or prompt cannot be used."""
        ...


class Service:
    """Answers calls, one at a time: a diffusers pipeline must not be used by two threads at once.

    Args:
        engine: Makes the pictures.
        limits: What may be asked for.
        model_version: Version in the registry, stated in every answer.
    """

    def __init__(self, engine: Engine, limits: ServingLimits, model_version: str) -> None:
        self._engine, self._limits, self._version = engine, limits, model_version
        self._turn = threading.Lock()

    def answer(self, values: Any) -> list[dict[str, Any]]:
        """Answers a call of several requests.

        Raises:
            ServiceError: 400 for a fault of the caller, before anything is generated where it can be seen
                then; 500 for a fault of ours.
        """
        try:
            requests = parse_requests(values, self._limits)
            photos = [self._photo(number, request) for number, request in enumerate(requests)]
            return [self._one(n, *pair) for n, pair in enumerate(zip(requests, photos, strict=True))]
        except ValueError as error:
            raise ServiceError(one_line(str(error)), error_code=INVALID_PARAMETER_VALUE) from None
        except Exception:
            mark = uuid.uuid4().hex[:12]
            logger.exception("fault %s", mark)
            raise ServiceError(
                f"internal fault {mark}: the server's log has the rest", INTERNAL_ERROR
            ) from None

    def _photo(self, number: int, request: Request) -> NDArray[np.uint8]:
        try:
            return decode_photo(request.photo, self._limits)
        except ValueError as error:
            raise ValueError(f"request {number}: {error}") from None

    def _one(self, number: int, request: Request, photo_uint8: NDArray[np.uint8]) -> dict[str, Any]:
        from components.inference import encode_png

        try:
            with self._turn:
                pictures = self._engine(photo_uint8, request)
        except ValueError as error:
            raise ValueError(f"request {number}: {error}") from error
        return {
            "pictures": [base64.b64encode(encode_png(picture)).decode("ascii") for picture in pictures],
            "seeds": request.seeds,
            "model_version": self._version,
        }


def one_line(text: str, most: int = 300) -> str:
    """Returns the text in one line of at most `most` characters, its middle left out if need be."""
    line = " ".join(text.split())
    half = (most - 5) // 2
    return line if len(line) <= most else f"{line[:half]} ... {line[-half:]}"


def registered_as(package: Path) -> tuple[str, str]:
    """Returns (version, URI) of the model that a package was loaded from, "unregistered" for others.

    MLflow leaves `registered_model_meta` at the root of a model that was loaded from the registry.
    """
    for folder in package.resolve().parents[:3]:
        meta = folder / "registered_model_meta"
        if meta.is_file():
            values = yaml.safe_load(meta.read_text(encoding="utf-8"))
            version = str(values["model_version"])
            return version, f"models:/{values['model_name']}/{version}"
    return "unregistered", "unregistered"


class PhotoVerseService(PythonModel):
    """The pyfunc: loads its package once, answers lists of requests.

    The input is `list[Any]`, so that MLflow hands over what was sent and all checks are ours.
    """

    def load_context(self, context: Any) -> None:
        """Loads base and adapter of the package."""
        folder = Path(context.artifacts["package"])
        package = read_package(folder)
        version, uri = registered_as(folder)
        self._service = Service(load_engine(package, uri), package.limits, version)

    def predict(
        self, context: Any, model_input: list[Any], params: dict[str, Any] | None = None
    ) -> list[Any]:
        """Returns one answer a request: `pictures` (PNG, base64), `seeds`, `model_version`."""
        return self._service.answer(model_input)


class PersonalizerEngine:
    """The engine of a package: `components.inference` on a stock pipeline.

    Args:
        personalizer: Base, adapter and face tools.
        dials: The model's own dials, which a request's are laid over.
    """

    def __init__(self, personalizer: "Personalizer", dials: dict[str, Any]) -> None:
        self._personalizer, self._dials = personalizer, dials

    def __call__(self, photo_uint8: NDArray[np.uint8], request: Request) -> Sequence[Image.Image]:
        """Returns the pictures, each with its recipe."""
        from components.inference import Dials

        dials = Dials.parse(self._dials | request.dials.model_dump(exclude_none=True), source="dials")
        card = self._personalizer.card(photo_uint8, consent=request.consent)
        count = request.pictures
        return self._personalizer.generate(
            [card] * count,
            [request.prompt] * count,
            request.seeds,
            dials,
            [request.negative_prompt] * count,
        )


def load_engine(package: Package, model_uri: str) -> PersonalizerEngine:
    """Loads the base and the adapter of a package.

    Settings are stored as plain values; `validate_call` builds from them what the loader's signature asks
    for.
    """
    from pydantic import validate_call

    from components.inference import Personalizer

    personalizer = validate_call(Personalizer.load)(
        adapter=package.adapter,
        model=package.model,  # type: ignore[arg-type]
        face=package.face,  # type: ignore[arg-type]
        model_version=model_uri,
    )
    return PersonalizerEngine(personalizer, package.dials)
