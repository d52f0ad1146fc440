"""The served model: requests in, pictures out, faults in one line.

`PhotoVerseService` is an MLflow pyfunc that is stored as code (`serve_script.py`). `mlflow models serve`
wants `{"inputs": [request, ...]}`; a request is described in `request.py`. The caller's faults are 400, our
own 500 with an id that the log knows; neither repeats the photo, and no stack trace leaves the process.
"""

import threading
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

from components.registry.answers import answer_of, log_fault, one_line
from components.registry.config import ServingLimits
from components.registry.engine import Engine, Job, Result, load_engine
from components.registry.package import read_package
from components.registry.request import Request, decode_photo, parse_requests
from components.registry.surroundings import read_surroundings


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


class Service:
    """Answers calls, one at a time: a diffusers pipeline must not be used by two threads at once.

    Args:
        engine: Makes the pictures; the requests of a call are drawn together.
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
            jobs = [self._job(number, request) for number, request in enumerate(requests)]
            with self._turn:
                results = self._engine(jobs)
            return [self._one(n, *pair) for n, pair in enumerate(zip(requests, results, strict=True))]
        except ValueError as error:
            raise ServiceError(one_line(str(error)), error_code=INVALID_PARAMETER_VALUE) from None
        except Exception as error:
            raise ServiceError(log_fault(error), INTERNAL_ERROR) from None

    def _job(self, number: int, request: Request) -> Job:
        if request.photo is None:
            return Job(request)
        try:
            return Job(request, decode_photo(request.photo, self._limits))
        except ValueError as error:
            raise ValueError(f"request {number}: {error}") from None

    def _one(self, number: int, request: Request, result: Result) -> dict[str, Any]:
        if isinstance(result, ValueError):
            raise ValueError(f"request {number}: {result}") from result
        if isinstance(result, Exception):
            raise result
        return answer_of(result, request, self._version)


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
        engine = load_engine(package, uri, read_surroundings())
        self._service = Service(engine, package.limits, version)

    def predict(
        self, context: Any, model_input: list[Any], params: dict[str, Any] | None = None
    ) -> list[Any]:
        """Returns one answer a request; see `answer_of`."""
        return self._service.answer(model_input)
