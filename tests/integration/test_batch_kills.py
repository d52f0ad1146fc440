"""A batch of 200 requests, 20 of them bad, killed three times: each is done exactly once in the end."""

import json
import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from components.core import RuntimeConfig, sha256_file
from components.face import FaceConfig
from components.inference import BatchConfig, Dials, Ledger, batch, personalize_batch, read_recipe
from components.model import ModelConfig, PhotoVerseAdapter, load_base, save_adapter
from components.portraits.world import portrait
from tests.factories import tiny_base

REQUESTS, BAD, PEOPLE = 200, 20, 10
CONFIG = BatchConfig(dials=Dials(num_inference_steps=1, guidance_scale=1), batch_size=8, workers=1)


def run(place: Path, with_ray: bool) -> None:
    """The batch, in a child process; without Ray the worker runs in a plain loop."""
    if not with_ray:
        batch.ray_session = lambda runtime: nullcontext()
        batch._ray_rows = plain_rows
    record = personalize_batch(
        config=CONFIG,
        face=FaceConfig(),
        model=ModelConfig(base=str(place / "base")),
        runtime=RuntimeConfig(device="cpu", num_cpus=2),
        adapter=place / "adapter.safetensors",
        model_uri="models:/photoverse/1",
        requests=place / "inbox",
        folder=place / "out",
        people=place / "people",
    )
    record.save(place / "record.json")


def plain_rows(work, config, runtime, adapter, settings):
    import pyarrow as pa

    from components.inference.worker import PictureWorker

    worker = PictureWorker(str(adapter), settings)
    for text in work:
        yield from worker(pa.table({"work": [text]})).to_pylist()


def good(number: int) -> dict:
    person = f"p{number % PEOPLE}"
    consent = {"person": person, "purpose": "a test", "given": "2026-01-01"}
    return {"id": f"r{number}", "photo": f"{person}.png", "prompt": "S*", "seed": number, "consent": consent}


FAULTS: list[Callable[[dict], dict | str]] = [
    lambda request: "{not json",
    lambda request: request | {"photo": "missing.png"},
    lambda request: request | {"photo": "nobody.png"},
    lambda request: request | {"photo": "broken.png"},
    lambda request: request | {"photo": "../p0.png"},
    lambda request: request | {"photo": "s3://somewhere/p0.png"},
    lambda request: request | {"consent": None},
    lambda request: request | {"dials": {"sigma": 9}},
    lambda request: request | {"colour": "red"},
    lambda request: request | {"prompt": "S* " + "word " * 90},
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An inbox with two files of requests, their photos, a tiny base and an adapter."""
    base = load_base(ModelConfig(base=str(tiny_base(tmp_path / "base"))))
    torch.manual_seed(0)
    model = ModelConfig(base=str(tmp_path / "base"))
    adapter = PhotoVerseAdapter.create(base.unet, base.text_encoder, base.image_encoder, model)
    save_adapter(adapter, tmp_path / "adapter.safetensors")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number in range(PEOPLE):
        Image.fromarray(portrait(number, 0, 96).image_uint8).save(inbox / f"p{number}.png")
    Image.new("RGB", (96, 96), "grey").save(inbox / "nobody.png")
    (inbox / "broken.png").write_bytes(b"no picture")
    requests: list[dict | str] = [good(number) for number in range(REQUESTS)]
    for fault, number in enumerate(random.Random(0).sample(range(REQUESTS), BAD)):
        requests[number] = FAULTS[fault % len(FAULTS)](good(number))
    lines = [one if isinstance(one, str) else json.dumps(one) for one in requests]
    for name, part in (("first.jsonl", lines[:120]), ("second.jsonl", lines[120:])):
        (inbox / name).write_text("\n".join(part) + "\n")
    return tmp_path


def start(place: Path, with_ray: bool) -> BaseProcess:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=run, args=(place, with_ray))
    process.start()
    return process


def end(process: BaseProcess) -> None:
    """Kills a process and all that it started, without a chance to tidy up."""
    psutil.Process(process.pid).suspend()
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in tree:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.join(170)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("with_ray", [False, True], ids=["plain", "ray"])
def test_each_request_is_done_once_however_often_the_batch_is_killed(place: Path, with_ray: bool) -> None:
    out, draw = place / "out", random.Random(1)
    ledger = Ledger(out)

    def done() -> int:
        return sum(row.status == "done" for row in ledger.rows())

    pictures_before: dict[Path, str] = {}
    for kill in range(3):
        process = start(place, with_ray)
        while process.exitcode is None and done() < 45 * (kill + 1):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 0.3))
        assert process.exitcode is None, "the batch was over before the kill"
        end(process)
        assert process.exitcode == -signal.SIGKILL
        assert pictures_before.items() <= {path: sha256_file(path) for path in pictures_before}.items()
        rows = [row for row in ledger.rows() if row.status == "done"]
        pictures_before = {out / file: sha256_file(out / file) for row in rows for file in row.files}
    last = start(place, with_ray)
    last.join(1200)
    assert last.exitcode == 0

    rows = ledger.rows()
    assert Counter(row.status for row in rows if row.run == rows[-1].run) == {
        "done": REQUESTS - BAD - len(pictures_before),
        "skipped": len(pictures_before),
        "failed": BAD,
    }
    once = Counter((row.source, row.id) for row in rows if row.status == "done")
    assert len(once) == REQUESTS - BAD
    assert set(once.values()) == {1}
    assert all(row.error for row in rows if row.status == "failed")
    on_disk = {path.relative_to(out).as_posix() for path in (out / "pictures").rglob("*") if path.is_file()}
    assert on_disk == {file for row in rows if row.status == "done" for file in row.files}
    assert not list(out.rglob("*.tmp"))
    assert all(sha256_file(path) == mark for path, mark in pictures_before.items())
    assert read_recipe(next((out / "pictures").rglob("r*.png")))["ai_generated"] is True
