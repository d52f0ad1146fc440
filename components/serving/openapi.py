"""What the server's pages take and give, as OpenAPI: for clients that are generated, and for testers."""

from typing import Any

from components.registry import request_schema

PICTURES = "/v1/pictures"
FAULT = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "description": "One line; never repeats the photo."},
        "reason": {"type": "string", "description": "Stable code: no_face, several_faces, blocked..."},
    },
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "required": ["pictures", "seeds", "model_version", "timings"],
    "properties": {
        "pictures": {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}},
        "seeds": {"type": "array", "items": {"type": "integer"}},
        "model_version": {"type": "string"},
        "timings": {"type": "object", "additionalProperties": {"type": "number"}},
        "similarity": {"type": "array", "items": {"type": ["number", "null"]}},
    },
    "additionalProperties": False,
}
STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
ANY = {"type": "object"}


def openapi(model_version: str) -> dict[str, Any]:
    """Returns the document (OpenAPI 3.1).

    Args:
        model_version: Of the model that is served.
    """
    faults = {"400": "The caller's fault.", "401": "A token is needed.", "503": "No room: see Retry-After."}
    request = request_schema()
    definitions = request.pop("$defs", {})
    request.pop("$schema", None)
    pictures = {
        "operationId": "pictures",
        "requestBody": {"required": True, "content": _json(_at_home(request))},
        "responses": {"200": _response("Pictures.", ANSWER)}
        | {status: _response(words, FAULT) for status, words in faults.items()},
        "security": [{}, {"token": []}],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "PhotoVerse", "version": model_version},
        "paths": {PICTURES: {"post": pictures}}
        | {
            path: {"get": {"operationId": path.strip("/").partition(".")[0], "responses": responses}}
            for path, responses in {
                "/health": {"200": _response("It answers.", STATUS)},
                "/ready": {"200": _response("It would accept.", STATUS), "503": _response("Not now.", FAULT)},
                "/schema": {"200": _response("JSON schema of a request.", ANY)},
                "/openapi.json": {"200": _response("This document.", ANY)},
            }.items()
        },
        "components": {
            "schemas": _at_home(definitions),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _response(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": _json(schema)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _at_home(value: Any) -> Any:
    """Points references to where OpenAPI keeps its schemas."""
    if isinstance(value, dict):
        return {
            key: below.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _at_home(below)
            for key, below in value.items()
        }
    return [_at_home(below) for below in value] if isinstance(value, list) else value
