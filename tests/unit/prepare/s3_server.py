"""moto's S3 server on loopback, as slow or as unreliable as is asked for.

    python -m tests.unit.prepare.s3_server FOLDER DELAY_S FAIL_EVERY

The files of FOLDER are the objects of the bucket `sets`. Each answer waits `DELAY_S`, and every
`FAIL_EVERY`th call is answered with 503 "SlowDown". Prints its port.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

BUCKET = "sets"
BUSY = b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>"


class Flaky:
    """A WSGI application that makes callers wait, and now and then fails in place of the one behind it."""

    def __init__(self, behind: Callable[..., Iterable[bytes]], delay_s: float, fail_every: int) -> None:
        self.behind, self.delay_s, self.fail_every = behind, delay_s, fail_every
        self.calls = count(1)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(self.delay_s)
        if self.fail_every and next(self.calls) % self.fail_every == 0:
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(BUSY)))]
            start_response("503 Slow Down", headers)
            return [BUSY]
        return self.behind(environ, start_response)


def fill(endpoint_url: str, folder: Path) -> None:
    """Puts the files of a folder into the bucket, whatever was there before."""
    import boto3

    os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "thing"}
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        client.put_object(Bucket=BUCKET, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes())


def main(folder: Path, delay_s: float, fail_every: int) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    flaky = Flaky(DomainDispatcherApplication(create_backend_app), 0.0, 0)
    server = make_server("127.0.0.1", 0, flaky, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fill(f"http://127.0.0.1:{server.port}", folder)
    flaky.delay_s, flaky.fail_every = delay_s, fail_every
    print(server.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
