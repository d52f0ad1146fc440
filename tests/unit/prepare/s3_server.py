"""The part of S3's protocol that reading needs, over a folder, as a real server process on loopback.

    python -m tests.unit.prepare.s3_server FOLDER DELAY_S FAIL_EVERY

Lists (ListObjectsV2, three keys a page), heads and gets objects of the bucket `sets`. Every `FAIL_EVERY`th
call is answered with 503 "SlowDown"; each answer waits `DELAY_S`. Prints its port.
"""

import hashlib
import re
import sys
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET, PAGE = "sets", 3


class Handler(BaseHTTPRequestHandler):
    """Answers of one folder."""

    protocol_version = "HTTP/1.1"
    folder: Path
    delay_s: float
    fail_every: int
    calls = count(1)

    def do_GET(self) -> None:
        time.sleep(self.delay_s)
        url = urlsplit(self.path)
        number = next(self.calls)
        if self.fail_every and number % self.fail_every == 0:
            return self.answer(503, b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if bucket != BUCKET:
            return self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        if not key:
            return self.answer(200, self.listing(query).encode())
        path = self.folder / key
        if not path.is_file():
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.answer(200, path.read_bytes(), path)
        data, first = path.read_bytes(), int(asked[1])
        last = min(int(asked[2] or len(data)), len(data) - 1)
        return self.answer(206, data[first : last + 1], path, f"bytes {first}-{last}/{len(data)}")

    do_HEAD = do_GET

    def listing(self, query: dict[str, str]) -> str:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        delimiter = query.get("delimiter", "")
        files = {p.relative_to(self.folder).as_posix(): p for p in self.folder.rglob("*") if p.is_file()}
        keys, folders = [], set()
        for key in sorted(files):
            rest = key.removeprefix(prefix)
            if not key.startswith(prefix):
                continue
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                keys.append(key)
        left = [key for key in keys if key > after]
        page, more = left[:PAGE], len(left) > PAGE
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{files[key].stat().st_size}</Size>"
            f"<ETag>{etag(files[key])}</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in page
        )
        if not after:
            contents += "".join(
                f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
                for name in sorted(folders)
            )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
        )

    def answer(self, status: int, body: bytes, path: Path | None = None, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream" if path else "application/xml")
        if part:
            self.send_header("Content-Range", part)
        if path is not None:
            self.send_header("ETag", etag(path))
            self.send_header("Last-Modified", formatdate(0, usegmt=True))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


def etag(path: Path) -> str:
    return f'"{hashlib.md5(path.read_bytes()).hexdigest()}"'


if __name__ == "__main__":
    Handler.folder, Handler.delay_s, Handler.fail_every = (
        Path(sys.argv[1]),
        float(sys.argv[2]),
        int(sys.argv[3]),
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
