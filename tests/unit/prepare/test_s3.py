"""Sets in an S3 store, against moto's server in a process: quick, slow, and failing every tenth call."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.prepare import PrepareConfig
from components.prepare.sources import Library, OutsideError
from components.shards import verify_shards
from tests.unit.prepare import layouts
from tests.unit.prepare.s3_server import BUCKET

PROJECT = Path(__file__).resolve().parents[3]
Serve = Callable[..., dict]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Returns a function that serves a folder, and gives the storage options that reach it."""
    started: list[subprocess.Popen] = []
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def start(folder: Path, delay_s: float = 0.0, fail_every: int = 0) -> dict:
        words = [
            sys.executable,
            "-m",
            "tests.unit.prepare.s3_server",
            str(folder),
            str(delay_s),
            str(fail_every),
        ]
        process = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        return {
            "key": "any",
            "secret": "thing",
            "endpoint_url": f"http://127.0.0.1:{port}",
            "use_listings_cache": False,
        }

    yield start
    for process in started:
        process.kill()
        process.wait()


def library(kind: str, path: str, options: dict | None = None) -> Library:
    source = {"kind": kind, "path": path, "storage_options": options or {}}
    return Library(PrepareConfig(sources=(source,)))


@pytest.mark.parametrize(("delay_s", "fail_every"), [(0.0, 0), (0.05, 0), (0.0, 10)])
def test_a_set_in_a_bucket_is_the_set_on_disk(
    serve: Serve, tmp_path: Path, as_bytes, delay_s: float, fail_every: int
) -> None:
    layouts.celebahq(tmp_path / "celebahq", lambda i: b"photo %d" % i, as_bytes)
    layouts.parquet(tmp_path / "parquet", lambda i: b"photo %d" % i)
    (tmp_path / "folder").mkdir()
    for i in range(8):
        (tmp_path / "folder" / f"{i} ü.jpg").write_bytes(b"photo %d" % i)
    options = serve(tmp_path, delay_s, fail_every)
    for kind in ("celebahq", "parquet", "folder"):
        local = library(kind, str(tmp_path / kind))
        remote = library(kind, f"s3://{BUCKET}/{kind}", options)
        records = remote.records()
        assert records == local.records()
        for record in records:
            assert remote.read(record.file) == local.read(record.file)
            assert remote.state(record.file)[0] == local.state(record.file)[0]
    with pytest.raises(FileNotFoundError):
        remote.read("folder/nowhere.jpg")
    with pytest.raises(OutsideError, match="leads out"):
        remote.read("folder/../celebahq/identity_CelebA.txt")


def test_photos_from_a_failing_bucket_give_the_samples_of_the_disk(
    serve: Serve, prepare_plainly, add_photos, tmp_path: Path
) -> None:
    source = add_photos(12)
    (source / "0003.png").write_bytes(b"no image")
    options = serve(tmp_path, fail_every=10)
    shares = {"validation_share": 0.0, "heldout_share": 0.0, "samples_per_shard": 5}

    def run(path: str, out: str, **extra: object):
        config = PrepareConfig(sources=({"name": "set", "path": path, **extra},), **shares)
        return prepare_plainly(None, config, tmp_path / out)

    remote = run(f"s3://{BUCKET}/photos", "remote", storage_options=options)
    local = run(str(source), "local")
    assert [shard.sha256 for shard in remote.shards] == [shard.sha256 for shard in local.shards]
    assert remote.rejects_by_reason == {"not_an_image": 1}
    assert verify_shards(remote) == []
    assert run(f"s3://{BUCKET}/photos", "remote", storage_options=options) == remote
    (source / "new.png").write_bytes((source / "0000.png").read_bytes() + b" ")
    with_new = serve(tmp_path, fail_every=10)
    again = run(f"s3://{BUCKET}/photos", "remote", storage_options=with_new)
    assert again.count_out == 12
    assert {s.sha256 for s in remote.shards} < {s.sha256 for s in again.shards}
