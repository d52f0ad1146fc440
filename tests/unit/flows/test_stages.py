"""The stage table: what is done again and what is kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from components.core import Checkpoint, Personalization, PhotoFolder, Promotion, ShardManifest
from components.prepare import PrepareConfig
from flows.config import resolve
from flows.pipeline import data_stages
from flows.stage_store import at_hand
from flows.stage_table import STAGES, stage_named, threads_for
from flows.stage_work import model_uri
from flows.stages import execute, finished, stage_fingerprint, stage_folder


@pytest.fixture
def config(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "model_index.json").write_text("{}")
    overrides = {"root": str(tmp_path / "runs"), "model": {"base": str(base)}}
    return resolve("portraits", overrides, name="one")


@pytest.fixture
def calls(monkeypatch):
    """Replaces the work of every stage by a record of what it was called with."""
    seen = []

    def fake(name, make):
        def work(config, folder, records):
            seen.append(name)
            return make(str(folder))

        monkeypatch.setitem(STAGES, name, replace(STAGES[name], work=work))

    fake("portraits", lambda folder: PhotoFolder(folder=folder, people={"train": 2}, count_out=2))
    fake("prepare", _manifest)
    fake("train", _checkpoint)
    return seen


def _manifest(folder):
    return ShardManifest(
        folder=folder, shards=(), samples={}, rejects=0, rejects_file="r", feature_shape=(5, 2, 8),
        latent_shape=(4, 8, 8),
    )  # fmt: skip


def _checkpoint(folder):
    adapter = Path(folder) / "adapter.safetensors"
    adapter.write_bytes(b"")
    return Checkpoint(
        run_name="one", folder=folder, adapter=str(adapter), step=1, reference_gain=0.1,
        reference_gain_interval=(0.0, 0.2),
    )  # fmt: skip


def run(config, *names):
    records = Path(config.root) / config.name / "records"
    return [execute(name, config, records / f"{name}.json") for name in names]


def test_a_record_is_written_with_fingerprint_and_time(config, calls):
    (record,) = run(config, "portraits")
    file = Path(config.root) / "one" / "records" / "portraits.json"
    stored = json.loads(file.read_text())
    assert stored["stage"] == "portraits"
    assert stored["fingerprint"] == record.fingerprint != ""
    assert Path(stored["folder"]) == Path(config.root) / "cache" / "portraits" / record.fingerprint


def test_done_work_is_not_done_again(config, calls):
    first = run(config, "portraits", "prepare", "train")
    assert run(config, "portraits", "prepare", "train") == first
    assert calls == ["portraits", "prepare", "train"]


def test_another_run_shares_people_and_shards_but_trains_itself(config, calls):
    run(config, "portraits", "prepare", "train")
    other = config.model_copy(update={"name": "two"})
    run(other, "portraits", "prepare", "train")
    assert calls == ["portraits", "prepare", "train", "train"]


def test_a_changed_setting_redoes_its_stage_and_what_follows(config, calls):
    run(config, "portraits", "prepare", "train")
    more = config.train.model_copy(update={"steps": 5})
    run(config.model_copy(update={"train": more}), "portraits", "prepare", "train")
    assert calls == ["portraits", "prepare", "train", "train"]
    calls.clear()
    fewer = config.portraits.model_copy(update={"train_people": 3})
    run(config.model_copy(update={"portraits": fewer}), "portraits", "prepare", "train")
    assert calls == ["portraits", "prepare", "train"]


def test_other_weights_under_the_same_name_are_other_work(config, calls):
    run(config, "portraits", "prepare")
    Path(config.model.base, "model_index.json").write_text('{"other": 1}')
    run(config, "portraits", "prepare")
    assert calls == ["portraits", "prepare", "prepare"]


def test_results_that_were_deleted_are_made_again(config, calls):
    (record,) = run(config, "portraits")
    for path in Path(record.folder).iterdir():
        path.unlink()
    Path(record.folder).rmdir()
    run(config, "portraits")
    assert calls == ["portraits", "portraits"]


def test_a_torn_record_is_no_record(config, calls):
    run(config, "portraits", "prepare", "train")
    Path(config.root, "one", "records", "train.json").write_text('{"stage": "train", "step": ')
    run(config, "train")
    assert calls.count("train") == 2


def test_the_flow_knows_without_a_process_what_is_done(config, calls):
    records = Path(config.root, "one", "records")
    assert finished("portraits", config, records / "portraits.json") is None
    run(config, "portraits")
    assert finished("portraits", config, records / "portraits.json") is not None
    assert finished("prepare", config, records / "prepare.json") is None


def test_a_missing_earlier_stage_is_named(config):
    with pytest.raises(ValueError, match="no portraits record at .*run `photoverse stage portraits` first"):
        run(config, "prepare")


def test_an_unknown_stage_is_named():
    with pytest.raises(ValueError, match="'polish' is not known; allowed: portraits, prepare, train"):
        stage_named("polish")


def test_own_photos_take_the_place_of_drawn_people(config, tmp_path, calls):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"1")
    own = config.model_copy(update={"photos": str(photos)})
    records = Path(config.root, "one", "records")
    before = stage_fingerprint("prepare", own, records)  # needs no portraits record
    (photos / "b.png").write_bytes(b"2")
    assert stage_fingerprint("prepare", own, records) != before
    gone = config.model_copy(update={"photos": str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match="photos: there is no folder .*nowhere"):
        run(gone, "prepare")


def test_sources_with_places_of_their_own_need_no_drawn_people(config, tmp_path, calls):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"1")

    def with_sources(*sources):
        expand = config.prepare.target_expand
        prepare = PrepareConfig.parse({"sources": sources, "target_expand": expand}, source="test")
        return config.model_copy(update={"prepare": prepare})

    own = with_sources({"path": str(photos)})
    records = Path(config.root, "one", "records")
    before = stage_fingerprint("prepare", own, records)
    (photos / "b.png").write_bytes(b"2")
    assert stage_fingerprint("prepare", own, records) != before
    assert data_stages(own) == ("prepare",)
    assert data_stages(with_sources({"path": str(photos)}, {"name": "drawn"})) == ("portraits", "prepare")


def test_new_photos_are_noticed_and_go_into_the_same_folder(config, tmp_path, calls):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"1")
    own = config.model_copy(update={"photos": str(photos)})
    records = Path(config.root, "one", "records")
    (first,) = run(own, "prepare")
    assert finished("prepare", own, records / "prepare.json") == first
    (photos / "b.png").write_bytes(b"2")
    assert finished("prepare", own, records / "prepare.json") is None
    (second,) = run(own, "prepare")
    assert calls == ["prepare", "prepare"]
    assert second.fingerprint != first.fingerprint  # so that training starts anew
    assert second.folder == first.folder  # so that its work is kept


def test_settings_that_change_no_sample_keep_the_folder(config, calls):
    def with_settings(**values):
        return config.model_copy(update={"prepare": config.prepare.model_copy(update=values)})

    run(config, "portraits", "prepare")
    records = Path(config.root, "one", "records")
    before = stage_folder("prepare", config, records)
    for setting in STAGES["prepare"].changeable:
        name = setting.removeprefix("prepare.")
        assert name in PrepareConfig.model_fields
        other = with_settings(**{name: 0.9 if "share" in name or "gpus" in name else 3})
        assert stage_folder("prepare", other, records) == before
        assert finished("prepare", other, records / "prepare.json") is None
    assert stage_folder("prepare", with_settings(min_face_px=30), records) != before


def test_the_model_of_a_batch_is_asked_for_or_own_or_the_champion(config, tmp_path):
    assert model_uri(config, tmp_path) == "models:/photoverse@champion"
    promotion = Promotion(
        decision="promoted", reasons=(), model_name="photoverse", model_uri="models:/photoverse/4"
    )
    promotion.save(tmp_path / "promote.json")
    assert model_uri(config, tmp_path) == "models:/photoverse/4"
    asked = config.model_copy(update={"model_uri": "models:/photoverse/2"})
    assert model_uri(asked, tmp_path) == "models:/photoverse/2"


def test_threads_fill_the_cores_once(config):
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"num_cpus": 8})})
    assert config.train.num_workers == 2
    assert threads_for("train", config) == 4
    assert threads_for("evaluate", config) == 8
    assert threads_for("prepare", config) == 1


class Nodes:
    """Machines with a root of their own, one after the other, and one store."""

    def __init__(self, config, tmp_path):
        self.config = config.model_copy(update={"store": f"memory://{tmp_path.name}/runs"})
        self.root = Path(config.root)

    def run(self, *names):
        shutil.rmtree(self.root, ignore_errors=True)
        return run(self.config, *names)

    def stored(self):
        filesystem = fsspec.filesystem("memory")
        place = self.config.store.removeprefix("memory:/")
        return sorted(path.removeprefix(f"{place}/") for path in filesystem.find(place))


def test_with_a_store_each_stage_may_run_on_another_machine(config, tmp_path, calls):
    nodes, here = Nodes(config, tmp_path), run(config, "portraits", "prepare", "train")
    calls.clear()
    there = [record for name in ("portraits", "prepare", "train") for record in nodes.run(name)]
    assert [record.fingerprint for record in there] == [record.fingerprint for record in here]
    assert calls == ["portraits", "prepare", "train"]
    assert "one/records/train.json" in nodes.stored()


def test_with_a_store_what_another_machine_has_done_is_done(config, tmp_path, calls):
    nodes = Nodes(config, tmp_path)
    nodes.run("portraits", "prepare", "train")
    calls.clear()
    nodes.run("train")
    assert calls == []
    shutil.rmtree(nodes.root)
    records = nodes.root / "one" / "records"
    assert finished("train", nodes.config, records / "train.json") is not None
    other = nodes.config.model_copy(update={"name": "two"})
    run(other, "portraits", "prepare", "train")
    assert calls == ["train"]


def test_with_a_store_a_failed_stage_leaves_what_it_did(config, tmp_path, calls, monkeypatch):
    nodes = Nodes(config, tmp_path)
    nodes.run("portraits", "prepare")

    def fails(config, folder, records):
        (folder / "half").write_text("done")
        raise ValueError("the disk is full")

    whole = STAGES["train"]
    monkeypatch.setitem(STAGES, "train", replace(whole, work=fails))
    with pytest.raises(ValueError, match="disk is full"):
        nodes.run("train")

    def goes_on(config, folder, records):
        assert (folder / "half").read_text() == "done"
        return whole.work(config, folder, records)

    monkeypatch.setitem(STAGES, "train", replace(whole, work=goes_on))
    (record,) = nodes.run("train")
    assert record.step == 1


def test_what_was_forgotten_in_the_store_is_not_sent_back(config, tmp_path, monkeypatch):
    nodes = Nodes(config, tmp_path)

    def draws(config, folder, records):
        (folder / "p.png").write_text("a face")
        return Personalization(
            folder=str(folder), ledger=str(folder / "l"), requests=0, done=0, failed=0, model_uri=""
        )

    def idles(config, folder, records):
        assert not (folder / "p.png").exists()
        return draws.record

    monkeypatch.setitem(STAGES, "personalize", replace(STAGES["personalize"], work=draws))
    (draws.record,) = nodes.run("personalize")
    with at_hand(nodes.config.store, "unused", "*/personalize") as root:
        (root / "one" / "personalize" / "p.png").unlink()
        (root / "one" / "personalize" / "l").write_text("forgotten")
    monkeypatch.setitem(STAGES, "personalize", replace(STAGES["personalize"], work=idles))
    run(nodes.config, "personalize")  # on the machine that still has the picture
    assert "one/personalize/p.png" not in nodes.stored()
    assert "one/personalize/l" in nodes.stored()
