"""An S3 store on loopback, empty at its start, and the address and keys that lead to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
import requests

BUCKET = "s3://photoverse"


@contextmanager
def object_store(host: str = "127.0.0.1") -> Iterator[str]:
    """Runs moto's S3 server for the block; yields its URL.

    moto keeps its buckets for the whole process: what earlier tests left there is dropped.
    """
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        requests.post(f"{url}/moto-api/reset", timeout=60).raise_for_status()
        yield url
    finally:
        server.stop()


@contextmanager
def bucket_in_environment(host: str = "127.0.0.1") -> Iterator[str]:
    """Runs a store with our bucket; its address and keys are in the environment. Yields the bucket."""
    with object_store(host) as url, pytest.MonkeyPatch.context() as patch:
        values = dict.fromkeys(("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"), url)
        values |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "of-the-test")
        for name, value in (values | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(BUCKET.removeprefix("s3://"))
        yield BUCKET
    fsspec.filesystem("s3").clear_instance_cache()
