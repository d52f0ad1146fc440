"""What runs in Ray Serve's own HTTP proxy, before any replica.

When the application is on its way in or out, Ray's proxy answers 404 for its pages; a client must then come
again, so that it is told 503 with Retry-After. The same header goes onto Ray's own 503.
"""

import os
from typing import Any

from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.serving.openapi import PICTURES

RETRY_AFTER = "PHOTOVERSE_RETRY_AFTER_S"
OURS = (PICTURES, "/health", "/ready", "/schema", "/openapi.json")


def middlewares() -> list[Any]:
    """Returns what Ray Serve puts around its proxy (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH)."""
    return [Middleware(ComeAgain, retry_after_s=os.environ.get(RETRY_AFTER, "2"))]


class ComeAgain:
    """Turns the proxy's 404 for a page of ours into a 503, and gives every 503 a Retry-After."""

    def __init__(self, app: ASGIApp, retry_after_s: str) -> None:
        self._app, self._retry_after = app, retry_after_s
        self._away = JSONResponse(
            {"error": "the server is starting or stopping"}, 503, {"Retry-After": retry_after_s}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes an HTTP request on, and looks at the status of its answer."""
        ours = scope["type"] == "http" and scope.get("path") in OURS

        away = False

        async def look(message: Message) -> None:
            nonlocal away
            if ours and message["type"] == "http.response.start":
                away = message["status"] == 404  # ours never are: the application is not there
                if away:
                    await self._away(scope, receive, send)
                elif message["status"] == 503:
                    headers = dict(message.get("headers", []))
                    headers.setdefault(b"retry-after", self._retry_after.encode())
                    message = {**message, "headers": list(headers.items())}
            if not away:
                await send(message)

        await self._app(scope, receive, look)
