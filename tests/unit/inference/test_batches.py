"""Batches: each request ends once, as pictures or as a row that says why not; a rerun draws what is left."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from components.core import SharedStore, sha256_file
from components.face import FaceConfig
from components.inference import (
    batch,
    inspect_picture,
    read_recipe,
)
from components.inference.ledger import Ledger, LedgerRow
from components.inference.requests import read_requests
from components.inference.worker import PictureWorker
from tests.unit.inference.made_batches import CONFIG, RUNTIME, personalized, request, rows, write


def test_each_request_ends_once_as_pictures_or_as_an_error_row(folder, run, adapter_file):
    file = write(
        folder / "requests.jsonl",
        request(0),
        request(1, photo="nobody.png"),
        "",
        "{not json",
        request(2, photo="broken.png"),
        request(3, prompt="S* " + "a " * 60),
        request(4, photo="missing.png"),
        request(5, photo="../secret.png"),
        request(0),
        request(6, dials={"sigma": 9}),
        request(7, colour="red"),
        "[1, 2]",
        request(8, photo=["a.png", "b.png"], num_images=2, dials={"sigma": 0.5, "num_inference_steps": 3}),
        request(9, dials={"strength": 0.5}, prompt="S* smiling"),
    )
    record = run(file)
    assert (record.requests, record.done, record.failed, record.skipped) == (13, 3, 10, 0)
    assert (record.count_in, record.count_out) == (13, 3)
    found = {row.id: row for row in rows(record)}
    assert len(found) == 13
    assert [row.line for row in rows(record)] == sorted(row.line for row in found.values())
    errors = {
        "r1": "no face found",
        "line-4": "Expecting property name",
        "r2": "not_an_image",
        "r3": "too long",
        "r4": "no photo 'missing.png'",
        "r5": "leads out of",
        "line-9": "id 'r0' is that of line 1",
        "r6": "sigma",
        "r7": "colour",
        "line-12": "expected a JSON object, found list",
    }
    for name, error in errors.items():
        assert found[name].status == "failed"
        assert error in found[name].error
        assert "\n" not in found[name].error
    assert found["r8"].files == ("pictures/r8-0.png", "pictures/r8-1.png")
    on_disk = sorted(path.name for path in (folder / "out" / "pictures").iterdir())
    assert on_disk == ["r0-0.png", "r8-0.png", "r8-1.png", "r9-0.png"]
    recipe = read_recipe(folder / "out" / "pictures" / "r8-1.png")
    assert recipe["model"] == "models:/photoverse/3"
    assert recipe["adapter_sha256"] == sha256_file(adapter_file)
    assert recipe["seed"] == 9
    assert recipe["dials"]["sigma"] == 0.5
    assert "prompt" not in recipe
    for path in (folder / "out" / "pictures").iterdir():
        told = inspect_picture(path)
        assert (told.credentials["state"], told.watermarked) == ("valid", True)


def test_a_rerun_draws_only_what_is_missing_has_changed_or_failed(folder, run):
    lines = [request(i) for i in range(4)] + [request(4, photo="nobody.png")]
    file = write(folder / "requests.jsonl", *lines)
    first = run(file)
    kept = {p.name: p.stat().st_mtime_ns for p in (folder / "out" / "pictures").iterdir()}
    (folder / "out" / "pictures" / "r1-0.png").unlink()
    lines[2]["prompt"] = "S* with a hat"
    second = run(write(file, *lines, request(5)))
    assert run.drawn == [["r0", "r1", "r2", "r3", "r4"], ["r1", "r2", "r4", "r5"]]
    assert (first.done, first.failed, second.done, second.failed, second.skipped) == (4, 1, 5, 1, 2)
    now = {p.name: p.stat().st_mtime_ns for p in (folder / "out" / "pictures").iterdir()}
    assert [name for name in kept if now[name] == kept[name]] == ["r0-0.png", "r3-0.png"]
    third = run(file, CONFIG.model_copy(update={"batch_size": 2}))
    assert run.drawn[2] == ["r4"]
    assert (third.done, third.skipped) == (5, 5)


def test_a_photo_that_changed_is_drawn_again(folder, run):
    file = write(folder / "requests.jsonl", request(0))
    run(file)
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes())
    run(file)
    assert run.drawn == [["r0"], ["r0"]]


def test_a_killed_run_has_lost_nothing_that_it_finished(folder, run, monkeypatch):
    file = write(folder / "requests.jsonl", *[request(i) for i in range(4)])
    settle, settled = batch._finish, []

    def killed(line, result, out, thumbnail_px):
        if len(settled) == 2:
            raise KeyboardInterrupt
        settled.append(line.id)
        return settle(line, result, out, thumbnail_px)

    monkeypatch.setattr(batch, "_finish", killed)
    with pytest.raises(KeyboardInterrupt):
        run(file)
    monkeypatch.setattr(batch, "_finish", settle)
    record = run(file)
    assert run.drawn[1] == ["r2", "r3"]
    assert (record.done, record.skipped) == (4, 2)
    assert sorted(row.id for row in Ledger(folder / "out").rows() if row.status == "done") == [
        *("r0", "r1", "r2", "r3")
    ]


def test_a_picture_is_the_same_whatever_else_is_asked_for(folder, run):
    alone = run(write(folder / "one.jsonl", request(2, dials={"m": 1})))
    picture = Image.open(folder / "out" / rows(alone)[0].files[0]).tobytes()
    for path in (folder / "out" / "pictures").iterdir():
        path.unlink()
    run(
        write(
            folder / "many.jsonl",
            request(0),
            request(1, photo="b.png"),
            request(2, dials={"m": 1}),
            request(3),
        )
    )
    again = Image.open(folder / "out" / "pictures" / "r2-0.png").tobytes()
    assert max(abs(a - b) for a, b in zip(picture, again, strict=True)) <= 1


def test_the_identity_of_a_request_is_what_its_pictures_depend_on(folder):
    def identity(config=CONFIG, model=None, **values):
        file = write(folder / "requests.jsonl", request(**values))
        return read_requests(file, config, model or {"adapter": "a"})[0].hash

    same = identity()
    assert identity(config=CONFIG.model_copy(update={"batch_size": 1, "workers": 3})) == same
    assert identity(dials={"sigma": 1.0}) == same
    for other in (
        identity(i=1),
        identity(prompt="S*"),
        identity(photo="b.png"),
        identity(dials={"sigma": 0.9}),
        identity(model={"adapter": "b"}),
        identity(config=CONFIG.model_copy(update={"negative_prompt": "hat"})),
    ):
        assert other != same


def test_half_a_line_of_a_killed_run_is_ignored(tmp_path):
    ledger = Ledger(tmp_path)
    (tmp_path / "p.png").touch()
    ledger.append(LedgerRow(line=1, id="a", status="done", files=("p.png",), request_hash="h1"))
    ledger.append(LedgerRow(line=2, id="b", status="done", files=("gone.png",), request_hash="h2"))
    with ledger.path.open("a") as file:
        file.write('{"line": 3, "id": "c", "sta')
    ledger.append(LedgerRow(line=4, id="d", status="done", files=("p.png",), request_hash="h4"))
    assert [row.id for row in ledger.rows()] == ["a", "b", "d"]
    assert list(ledger.done()) == ["h4"]  # it drew over the picture of h1


def test_old_work_is_not_taken_for_done_when_its_file_was_drawn_over(folder, run):
    file = write(folder / "requests.jsonl", request(0))
    run(file)
    run(write(file, request(0, prompt="S* with a hat")))
    run(write(file, request(0)))
    assert run.drawn == [["r0"]] * 3


def test_the_real_thing_with_ray_data_actors(folder, adapter_file, model_config):
    file = write(
        folder / "requests.jsonl",
        request(0),
        request(1, photo="b.png"),
        request(2, photo="nobody.png"),
        request(3),
    )
    config = CONFIG.model_copy(update={"batch_size": 2, "workers": 1})
    record = personalized(folder, file, adapter_file, model_config, config)
    assert (record.done, record.failed) == (3, 1)
    assert [row.status for row in rows(record)] == ["done", "done", "failed", "done"]
    for row in rows(record):
        for name in row.files:
            assert Image.open(folder / "out" / name).size == (64, 64)


def test_a_worker_on_another_node_takes_adapter_and_cards_from_the_store(
    folder, adapter_file, model_config, tmp_path
):
    store = SharedStore(url=f"memory://{tmp_path.name}/runs", root=str(tmp_path / "root"))
    place = Path(store.root) / "nightly" / "model" / "adapter.safetensors"
    place.parent.mkdir(parents=True)
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(adapter_file.with_suffix(suffix), place.with_suffix(suffix))
        store.send_file(place.with_suffix(suffix))
    settings = {
        "batch": CONFIG.model_dump(mode="json"), "face": FaceConfig().model_dump(mode="json"),
        "model": model_config.model_dump(mode="json"), "runtime": RUNTIME.model_dump(mode="json"),
        "model_uri": "models:/photoverse/3", "store": store.model_dump(mode="json"),
    }  # fmt: skip
    maker = PictureWorker(str(place), settings).personalizer
    card = Path(store.root) / "people" / "cards" / "one.safetensors"
    card.parent.mkdir(parents=True)
    maker.card([(folder / "a.png").read_bytes()], consent="a test").save(card)
    store.send_file(card)
    shutil.rmtree(store.root)  # the other node has nothing of it
    worker = PictureWorker(str(place), settings)
    asked = {"id": "r0", "card": str(card), "photos": [], "prompt": "a photo of S*", "negative_prompt": ""}
    dials = CONFIG.dials.model_dump(mode="json")
    (drawn,) = worker.draw([asked | {"seed": 1, "num_images": 1, "dials": dials}])
    assert isinstance(drawn, list), drawn
