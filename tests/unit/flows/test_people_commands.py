"""`photoverse cards`, `photoverse forget`, and the summary of a batch that thumbnails are in."""

import json
import shutil
from datetime import UTC, date, datetime

import pytest
import torch
from PIL import Image

from components.core import Personalization, SharedStore
from components.inference import CardStore, Consent, IdentityCard, Ledger, LedgerRow
from components.shards import open_manifest, verify_shards
from flows import batch_summary as summary
from flows.cli import main
from flows.commands.options import FAILED, OK, REFUSED
from tests.unit.shards.conftest import make_sample, make_set  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def _no_prefect(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


@pytest.fixture
def root(tmp_path):
    """A folder of runs with two kept cards and a batch of both people."""
    store = CardStore(tmp_path / "people")
    for person in ("anna", "bob"):
        consent = Consent(person=person, purpose="cards", given=date(2026, 1, 1))
        some = torch.zeros(1, 2)
        store.keep(IdentityCard(some, some + 1, "a", "b", consent, datetime.now(UTC)))
    ledger = Ledger(tmp_path / "nightly" / "personalize")
    for line, person in enumerate(("anna", "bob"), start=1):
        row = {"line": line, "id": f"{person}-1", "status": "done", "person": person, "request_hash": person}
        names = {"files": (f"pictures/{person}-1-0.png",), "thumbnail": f"thumbnails/{person}-1-0.jpg"}
        for name in (*names["files"], names["thumbnail"]):
            (ledger.folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), "red").save(ledger.folder / name)
        ledger.append(LedgerRow(**row, **names, run="1"))
    ledger.append(LedgerRow(line=3, id="c|x", status="failed", error="no <b>face</b> | here", run="1"))
    return tmp_path


def record(root) -> Personalization:
    folder = root / "nightly" / "personalize"
    return Personalization(
        count_in=3, count_out=2, folder=str(folder), ledger=str(folder / "ledger.jsonl"), requests=3, done=2,
        failed=1, model_uri="models:/photoverse/1",
    )  # fmt: skip


def test_forget_lists_what_went_and_leaves_the_others(root, capsys):
    assert main(["forget", "--person", "anna", "--root", str(root)]) == OK
    said = capsys.readouterr().out
    assert said.count("removed ") == 3
    assert "anna-1-0.png" in said
    assert "anna-1-0.jpg" in said
    assert "3 files and samples of anna removed, 0 left" in said
    assert main(["cards", "--root", str(root)]) == OK
    said = capsys.readouterr().out
    assert "bob: cards (given 2026-01-01), until forgotten" in said
    assert "anna" not in said
    assert (root / "nightly/personalize/pictures/bob-1-0.png").is_file()


def test_forget_reaches_prepared_shards_and_evaluations(root, capsys, make_set):  # noqa: F811
    manifest = make_set(2, 2)  # persons p0 to p3
    folder = root / "cache" / "prepare" / "a set"
    shutil.copytree(manifest.folder, folder, ignore=shutil.ignore_patterns("people", "nightly", "cache"))
    manifest = manifest.model_copy(update={"folder": str(folder)})
    for path in (folder / "manifest.json", folder / "record.json", root / "run" / "records" / "prepare.json"):
        manifest.save(path)
    report = root / "run" / "evaluate" / "report.json"
    shown = ["people/p1-k-7.png", "people/p2-k-7.png", "references/p1-k.png", "report.html", "faces.png"]
    for name in shown:
        (report.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (report.parent / name).write_bytes(b"a face")
    report.write_text(json.dumps({"pictures": [{"person": "p1"}, {"person": "p2"}]}))
    assert main(["forget", "--person", "p1", "--root", str(root)]) == OK
    said = capsys.readouterr().out
    assert f"00000001-0 from {folder / 'train-000000.tar'} (made of später 1.png)" in said
    assert "5 files and samples of p1 removed, 0 left" in said
    after = open_manifest(folder)
    assert verify_shards(after) == []
    assert after.samples["train"] == 3
    for path in (folder / "record.json", root / "run" / "records" / "prepare.json"):
        assert type(after).load(path).shards == after.shards
    left = sorted(path.name for path in report.parent.rglob("*.*"))
    assert left == ["p2-k-7.png", "report.json"]
    assert CardStore(root / "people").forgotten() == ["p1"]


def test_forget_reaches_what_is_in_a_store(root, tmp_path, capsys, make_set):  # noqa: F811
    """Cards, batches and shards; the records of the sets, which name folders of the nodes, follow."""
    manifest = make_set(2, 2)
    folder, kept = root / "cache" / "prepare" / "abc", root / "run" / "records" / "prepare.json"
    shutil.copytree(manifest.folder, folder, ignore=shutil.ignore_patterns("people", "nightly", "cache"))
    manifest = manifest.model_copy(update={"folder": str(folder)})
    for path in (folder / "manifest.json", folder / "record.json", kept):
        manifest.save(path)
    store = SharedStore(url=f"memory://{tmp_path.name}/runs", root=str(root))
    for part in (root / "people", root / "nightly" / "personalize"):
        store.send(part)
    store.send(folder, leave=["record.json"])
    for file in (folder / "record.json", kept):
        store.send_file(file)
    for person in ("anna", "p1"):
        assert main(["forget", "--person", person, "--store", store.url]) == OK
    said = capsys.readouterr().out
    assert f"removed {store.url}/nightly/personalize/pictures/anna-1-0.png" in said
    assert "0 left" in said
    assert main(["cards", "--store", store.url]) == OK
    assert "bob: cards" in capsys.readouterr().out
    for part in (root / "people", root / "nightly" / "personalize", folder):  # a node that had them all
        store.fetch(part, leave=["record.json"])
    assert not list(root.rglob("anna-1-0.*"))
    assert [one.consent.person for one in CardStore(root / "people").all()] == ["bob"]
    assert verify_shards(open_manifest(folder)) == []
    for path in (folder / "record.json", kept):
        store.fetch_file(path)
        assert type(manifest).load(path).shards == open_manifest(folder).shards


def test_forget_says_when_something_is_left(root, capsys, monkeypatch):
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_args, **_kwargs: None)
    assert main(["forget", "--person", "anna", "--root", str(root)]) == FAILED
    assert capsys.readouterr().out.count("STILL THERE") == 3


def test_forget_says_when_prefect_does_not_answer(root, capsys, monkeypatch):
    def silent(**_kwargs):
        raise ConnectionError("nobody there")

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr("prefect.client.orchestration.get_client", silent)
    assert main(["forget", "--person", "anna", "--root", str(root)]) == FAILED
    assert "Prefect did not answer" in capsys.readouterr().out


def test_forget_looks_only_in_folders_that_are_there(root, capsys):
    assert main(["forget", "--person", "anna", "--root", str(root), "--also", str(root / "none")]) == REFUSED
    assert "there is no folder" in capsys.readouterr().err


def test_expired_cards_go_when_they_are_listed(root, capsys):
    store = CardStore(root / "people")
    some, old = torch.zeros(1, 2), datetime(2026, 1, 2, tzinfo=UTC)
    consent = Consent(person="carol", purpose="cards", given=date(2026, 1, 1))
    card = IdentityCard(some, some + 1, "a", "b", consent, old, expires=old)
    card.save(store.cards / f"{'c' * 32}.safetensors")
    assert main(["cards", "--root", str(root)]) == OK
    assert "carol: expired on 2026-01-02, removed" in capsys.readouterr().out
    assert [kept.consent.person for kept in store.all()] == ["anna", "bob"]


def test_the_summary_shows_thumbnails_and_reasons_that_stay_in_their_cells(root):
    text = summary.batch_summary(record(root))
    assert "**3 requests**: 2 done, 0 skipped (done before), 1 failed" in text
    assert text.count("](data:image/jpeg;base64,") == 2
    assert "| c?x | no ?b?face?/b? ? here |" in text
    main(["forget", "--person", "anna", "--root", str(root)])
    again = summary.batch_summary(record(root))
    assert "anna-1](data" not in again


def test_without_a_batch_the_summary_is_short(tmp_path):
    empty = record(tmp_path).model_copy(update={"requests": 0, "done": 0, "failed": 0})
    assert "**0 requests**" in summary.batch_summary(empty)
