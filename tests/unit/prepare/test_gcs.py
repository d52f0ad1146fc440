"""Sets in Google Cloud Storage, against a small server of its protocol on loopback."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.prepare import PrepareConfig
from components.prepare.sources import Library, OutsideError
from tests.unit.prepare import layouts
from tests.unit.prepare.gcs_server import BUCKET, serve


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = serve(tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "token": "anon",
        "endpoint_url": f"http://127.0.0.1:{server.server_port}",
        "skip_instance_cache": True,
    }
    server.shutdown()
    server.server_close()


def test_a_set_behind_gs_is_the_set_on_disk(options: dict, tmp_path: Path, as_bytes) -> None:
    layouts.celebahq(tmp_path / "celebahq", lambda i: b"photo %d" % i, as_bytes)
    layouts.parquet(tmp_path / "parquet", lambda i: b"photo %d" % i)
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for i in range(5):
        (tmp_path / "folder" / "below" / f"{i} ü.jpg").write_bytes(b"photo %d" % i)

    def library(path: str, **more: object) -> Library:
        return Library(PrepareConfig(sources=({"kind": kind, "path": path, **more},)))

    for kind in ("celebahq", "parquet", "folder"):
        local = library(str(tmp_path / kind))
        remote = library(f"gs://{BUCKET}/{kind}", storage_options=options)
        records = remote.records()
        assert records == local.records()
        assert len(records) > 2
        for record in records:
            assert remote.read(record.file) == local.read(record.file)
            assert remote.state(record.file)[0] == local.state(record.file)[0]
    with pytest.raises(FileNotFoundError):
        remote.read("folder/nowhere.jpg")
    with pytest.raises(OutsideError, match="leads out"):
        remote.read("folder/../celebahq/identity_CelebA.txt")
