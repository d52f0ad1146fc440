"""The part of Google Cloud Storage's JSON protocol that reading needs, over a folder, on loopback.

Lists (three names a page), describes and gives objects of the bucket `sets`; no key is asked for.
"""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET, PAGE = "sets", 3
PATH = re.compile(rf"(?:/download)?/storage/v1/b/{BUCKET}/o(?:/(?P<name>.+))?")


def serve(folder: Path) -> ThreadingHTTPServer:
    """Returns a server of the folder's files; the caller runs and closes it."""
    handler = type("Bucket", (Handler,), {"folder": folder})
    return ThreadingHTTPServer(("127.0.0.1", 0), handler)


class Handler(BaseHTTPRequestHandler):
    """Answers of one folder."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        asked = PATH.fullmatch(url.path)
        if asked is None:
            return self.answer(404, b"{}")
        if asked["name"] is None:
            return self.answer(200, json.dumps(self.listing(query)).encode())
        name = unquote(asked["name"])
        path = self.folder / name
        if not path.is_file():
            return self.answer(404, b'{"error": {"code": 404, "message": "no such object"}}')
        if query.get("alt") != "media":
            return self.answer(200, json.dumps(self.about(name)).encode())
        data = path.read_bytes()
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            return self.answer(200, data)
        first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
        return self.answer(206, data[first : last + 1], f"bytes {first}-{last}/{len(data)}")

    def listing(self, query: dict[str, str]) -> dict[str, Any]:
        prefix, after, delimiter = (query.get(word, "") for word in ("prefix", "pageToken", "delimiter"))
        names = sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())
        names = [name for name in names if name.startswith(prefix)]
        below = [name for name in names if delimiter and delimiter in name.removeprefix(prefix)]
        folders = {prefix + name.removeprefix(prefix).split(delimiter)[0] + delimiter for name in below}
        left = [name for name in names if name not in below and name > after]
        found: dict[str, Any] = {"kind": "storage#objects", "items": [self.about(n) for n in left[:PAGE]]}
        if folders and not after:
            found["prefixes"] = sorted(folders)
        return found | ({"nextPageToken": left[PAGE - 1]} if len(left) > PAGE else {})

    def about(self, name: str) -> dict[str, Any]:
        data = (self.folder / name).read_bytes()
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        return {
            "kind": "storage#object", "name": name, "bucket": BUCKET, "size": str(len(data)),
            "md5Hash": digest, "etag": digest, "generation": "1", "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip

    def answer(self, status: int, body: bytes, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass
