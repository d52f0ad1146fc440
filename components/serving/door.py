"""The door of the server: what comes in over HTTP is checked here, and what goes out has one form.

    POST /v1/pictures   a request (see GET /schema) -> pictures
    GET  /health        200 as long as the process answers
    GET  /ready         200 if a request would be accepted now, else 503
    GET  /schema        JSON schema of a request
    GET  /openapi.json  all of this, as OpenAPI

The caller's faults are 4xx, ours 500 with an id that the log knows; the answer is then {"error": one line},
with a stable `reason` where there is one (no_face, several_faces, blocked...).
Who cannot be served now gets 503 with Retry-After: there is no endless queue. No Ray here.
"""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from components.registry import (
    Job,
    Result,
    ServingLimits,
    answer_of,
    decode_photo,
    log_fault,
    one_line,
    parse_request,
    request_schema,
)
from components.serving.config import ServingConfig
from components.serving.openapi import PICTURES, openapi

OVERHEAD_BYTES = 100_000
"""Of a request's body, beyond the photo."""


class Refusal(Exception):
    """What the caller is told instead of pictures."""

    def __init__(self, status: int, words: str, code: str | None = None, **headers: str) -> None:
        super().__init__(words)
        self.status, self.code, self.headers = status, code, headers

    def response(self) -> Response:
        """Returns the answer."""
        code = {} if self.code is None else {"reason": self.code}
        return JSONResponse({"error": str(self)} | code, self.status, self.headers)


class Door:
    """Checks requests and passes them on.

    Args:
        draw: Draws one job; an exception among its results is that job's fault.
        limits: What one request may ask for.
        model_version: Version in the registry, stated in every answer.
        config: Queue, retry.
        token_sha256: SHA-256 of the token that callers must show, in hex; None asks for none.
        told: Called after each request for pictures with status, seconds and number of pictures.
    """

    def __init__(
        self,
        draw: Callable[[Job], Awaitable[Result]],
        limits: ServingLimits,
        model_version: str,
        config: ServingConfig,
        token_sha256: str | None = None,
        told: Callable[[int, float, int], None] = lambda status, seconds, pictures: None,
    ) -> None:
        self._draw, self._limits, self._version, self._config = draw, limits, model_version, config
        self._token_sha256, self._told = token_sha256, told
        self.waiting = 0
        self._pages: dict[tuple[str, str], Callable[[Request], Awaitable[Response]]] = {
            ("POST", PICTURES): self._pictures,
            ("GET", "/health"): self._health,
            ("GET", "/ready"): self._ready,
            ("GET", "/schema"): self._schema,
            ("GET", "/openapi.json"): self._openapi,
        }

    async def answer(self, request: Request) -> Response:
        """Answers any HTTP request."""
        try:
            page = self._pages.get((request.method, request.url.path))
            if page is None:
                known = [method for method, path in self._pages if path == request.url.path]
                if known:
                    raise Refusal(405, f"allowed here: {', '.join(known)}", Allow=", ".join(known))
                raise Refusal(404, f"there is: {', '.join(path for _, path in self._pages)}")
            return await page(request)
        except Refusal as refusal:
            return refusal.response()
        except Exception as error:  # noqa: BLE001 - nothing of it may reach the caller
            return Refusal(500, log_fault(error)).response()

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model_version": self._version})

    async def _ready(self, request: Request) -> Response:
        self._check_room()
        return JSONResponse({"status": "ready", "waiting": self.waiting})

    async def _schema(self, request: Request) -> Response:
        return JSONResponse(request_schema())

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(self._version))

    async def _pictures(self, request: Request) -> Response:
        begin, pictures = time.perf_counter(), 0
        try:
            self._check_token(request)
            values = _json(await self._body(request))
            response, pictures = await self._draw_one(values, begin)
        except Refusal as refusal:
            response = refusal.response()
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody is there to read it
        except Exception as error:  # noqa: BLE001 - as above
            response = Refusal(500, log_fault(error)).response()
        self._told(response.status_code, time.perf_counter() - begin, pictures)
        return response

    async def _draw_one(self, values: Any, begin: float) -> tuple[Response, int]:
        """Checks the request and has it drawn; returns the answer and its number of pictures."""
        try:
            request = parse_request(values, self._limits)
        except ValueError as error:
            raise Refusal(400, one_line(str(error))) from None
        self._check_room()
        self.waiting += 1
        try:
            photo = None
            if request.photo is not None:
                photo = await asyncio.to_thread(decode_photo, request.photo, self._limits)
            result = await self._draw(Job(request, photo))
            if isinstance(result, Exception):
                raise result
            answer = await asyncio.to_thread(answer_of, result, request, self._version)
        except ValueError as error:
            raise Refusal(400, one_line(str(error)), getattr(error, "reason", None)) from None
        finally:
            self.waiting -= 1
        answer["timings"]["total"] = round(time.perf_counter() - begin, 4)
        return JSONResponse(answer), len(answer["pictures"])

    def _check_room(self) -> None:
        if self.waiting >= self._config.waiting:
            reason = f"{self.waiting} requests are waiting already"
            raise Refusal(503, reason, **{"Retry-After": str(self._config.retry_after_s)})

    def _check_token(self, request: Request) -> None:
        if self._token_sha256 is None:
            return
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        shown = hashlib.sha256(token.strip().encode("utf-8", "replace")).hexdigest()
        if kind.lower() != "bearer" or not hmac.compare_digest(shown, self._token_sha256):
            reason = "a token is needed: Authorization: Bearer <token>"
            raise Refusal(401, reason, **{"WWW-Authenticate": "Bearer"})

    async def _body(self, request: Request) -> bytes:
        """Reads the body, no further than a request can be long."""
        most = self._limits.photo_bytes * 4 // 3 + OVERHEAD_BYTES
        stated = request.headers.get("Content-Length", "0")
        if stated.isdigit() and int(stated) > most:
            raise Refusal(400, f"the request is larger than {most} bytes")
        parts, length = [], 0
        async for part in request.stream():
            length += len(part)
            if length > most:
                raise Refusal(400, f"the request is larger than {most} bytes")
            parts.append(part)
        return b"".join(parts)


def _json(body: bytes) -> Any:
    """Reads strict JSON: no NaN, no name twice."""

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON number")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(found)
        if len(values) != len(found):
            raise ValueError("a name stands twice in one object")
        return values

    try:
        return json.loads(body.decode("utf-8"), parse_constant=constant, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise Refusal(400, f"the body is no JSON: {error.msg} at character {error.pos}") from None
    except UnicodeDecodeError:
        raise Refusal(400, "the body is no JSON: it is not UTF-8") from None
    except RecursionError:
        raise Refusal(400, "the body is no JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise Refusal(400, f"the body is no strict JSON: {one_line(str(error))}") from None
