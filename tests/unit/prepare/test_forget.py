"""A person is forgotten in a set that was really prepared, and does not come back with the next run."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.core import sha256_folder
from components.prepare import PrepareConfig, forget_in_set
from components.prepare.engines import PlainEngine
from components.prepare.forget import FORGOTTEN
from components.prepare.pipeline import prepare_with
from components.shards import find_samples, load_split, open_manifest, plan_forgetting, verify_shards

TRAIN = PrepareConfig(
    validation_share=0.0,
    heldout_share=0.0,
    samples_per_shard=3,
    identity_from_folder=True,
    max_reject_share=0.9,
)


@pytest.fixture
def people(tmp_path, head, as_bytes) -> Path:
    """Ada and Bob with three photos each, one of Ada's without a face, in tars of mixed people."""
    source = tmp_path / "photos"
    for i, person in enumerate(("ada", "bob") * 3):
        (source / person).mkdir(parents=True, exist_ok=True)
        (source / person / f"{i}.png").write_bytes(as_bytes(np.roll(head, i, axis=1)))
    (source / "ada" / "blank.png").write_bytes(as_bytes(np.zeros_like(head)))
    return source


@pytest.fixture
def prepare(tmp_path, model, people):
    def run(without=(), out=tmp_path / "out", config=TRAIN):
        from components.face import FaceConfig

        return prepare_with(
            PlainEngine(), config=config, face=FaceConfig(), model=model, source_folder=people, folder=out,
            without=without,
        )  # fmt: skip

    return run


def persons(manifest) -> set[str]:
    return {s["meta.json"]["person"] for s in load_split(manifest, "train", ())}


def test_tars_journal_and_pages_forget_a_person(prepare, people, tmp_path):
    before = prepare()
    out = tmp_path / "out"
    assert persons(before) == {"ada", "bob"}
    assert (out / "prepare.html").is_file()
    copy = before.model_copy(update={"fingerprint": "of the flow"}).save(tmp_path / "prepare.json")
    done = forget_in_set("ada", out, [copy])
    assert done.left == ()
    assert sorted(sample.file for sample in done.samples) == ["ada/0.png", "ada/2.png", "ada/4.png"]
    assert {path.name for path in done.files} == {"prepare.html", "contact_sheet.png", "rejects.parquet"}
    after = open_manifest(out)
    assert verify_shards(after) == []
    assert persons(after) == {"bob"}
    assert after.samples["train"] == 3 == sum(after.licences.values())
    assert pq.read_table(out / "rejects.parquet").num_rows == 0
    kept = type(after).load(copy)
    assert (kept.shards, kept.samples, kept.fingerprint) == (after.shards, after.samples, "of the flow")
    assert json.loads((out / FORGOTTEN).read_text()) == ["ada/0.png", "ada/2.png", "ada/4.png"]
    assert forget_in_set("ada", out).samples == ()


def test_a_later_run_does_nothing_again_and_brings_nobody_back(prepare, people, tmp_path, as_bytes, head):
    out = tmp_path / "out"
    prepare()
    forget_in_set("ada", out)
    tars = sha256_folder(out, "*.tar")
    again = prepare(without=["ada"])  # her photos still lie there
    assert sha256_folder(out, "*.tar") == tars
    assert again.shards == open_manifest(out).shards
    assert (again.count_in, again.count_out, again.rejects) == (3, 3, 0)
    assert (out / "prepare.html").is_file()
    (people / "ada" / "new.png").write_bytes(as_bytes(np.roll(head, 9, axis=1)))
    (people / "bob" / "new.png").write_bytes(as_bytes(np.roll(head, 11, axis=1)))
    more = prepare(without=["ada"])
    assert persons(more) == {"bob"}
    assert {*again.shards} < {*more.shards}
    assert more.samples["train"] == 4
    assert verify_shards(more) == []


def test_a_set_that_was_not_reached_is_cleaned_by_its_next_run(prepare, tmp_path):
    prepare()
    after = prepare(without=["ada"])
    assert persons(after) == {"bob"}
    assert find_samples(tmp_path / "out", ["ada"]) == []


def test_forgetting_that_was_cut_off_is_finished_first(prepare, tmp_path):
    out = tmp_path / "out"
    prepare()
    plan_forgetting(out, ["ada"])  # and killed
    with pytest.raises(ValueError, match="was cut off .* run `photoverse forget` again"):
        prepare()
    done = forget_in_set("bob", out)  # whoever is forgotten next
    assert {sample.file.partition("/")[0] for sample in done.samples} == {"ada", "bob"}
    assert open_manifest(out).samples["train"] == 0


def test_embeddings_of_grouped_photos_go_too(prepare, tmp_path, monkeypatch):
    from tests.unit.prepare.test_people import Colours

    monkeypatch.setattr("components.prepare.embed.IdentityEncoder", Colours)
    grouped = TRAIN.model_copy(update={"identity_from_folder": False, "person_similarity": 0.95})
    out = tmp_path / "grouped"
    before = prepare(out=out, config=grouped)
    (person,) = persons(before)
    assert person == "ada/0.png"  # all photos show the same head
    done = forget_in_set(person, out)
    assert len(done.samples) == 6
    (table,) = (out / "people").glob("*.parquet")
    assert table in done.files
    assert pq.read_table(table)["file"].to_pylist() == ["ada/blank.png"]
    with pytest.raises(ValueError, match="photos"):  # nobody is left to prepare
        prepare(out=out, config=grouped)
