"""The store that stands for a folder: by content, whole or absent, nothing outside."""

import json
import uuid
from pathlib import Path

import fsspec
import pytest

from components.core import SharedStore
from tests.object_store import bucket_in_environment


@pytest.fixture(scope="module")
def s3():
    with bucket_in_environment() as bucket:
        yield bucket


@pytest.fixture(params=["memory", "s3"])
def nodes(request, tmp_path) -> list[SharedStore]:
    """Two nodes with a folder each and one store in common."""
    place = "memory:/" if request.param == "memory" else request.getfixturevalue("s3")
    url = f"{place}/{uuid.uuid4().hex}"
    return [SharedStore(url=url, root=str(tmp_path / name)) for name in ("a", "b")]


def folder_of(store: SharedStore, **files: str) -> Path:
    folder = Path(store.root) / "run" / "train"
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_what_one_node_sends_the_other_fetches(nodes):
    first, second = nodes
    folder = folder_of(first, log="1", samples__grid="2")
    assert not first.has(folder)
    assert first.send(folder) == 2
    other = folder_of(second)
    assert second.has(other)
    assert second.fetch(other) == 2
    assert (other / "samples" / "grid").read_text() == "2"


def test_only_what_changed_travels_and_what_is_gone_goes(nodes):
    first, second = nodes
    folder = folder_of(first, log="1", adapter="2", old="3")
    first.send(folder)
    (folder / "log").write_text("4")
    (folder / "old").unlink()
    assert first.send(folder) == 1
    assert first.send(folder) == 0
    other = folder_of(second, adapter="2", own="5")
    assert second.fetch(other) == 1
    assert sorted(path.name for path in other.iterdir()) == ["adapter", "log"]


def test_hidden_and_left_out_files_stay_at_home(nodes):
    first, second = nodes
    folder = folder_of(first, log="1", checkpoints__big="2")
    (folder / ".ledger.lock").write_text("")
    assert first.send(folder, leave=("checkpoints",)) == 1
    assert second.fetch(folder_of(second)) == 1


def test_a_folder_that_is_half_sent_is_not_seen(nodes, monkeypatch):
    first, second = nodes
    folder = folder_of(first, log="1", adapter="2")

    def gone(*args, **kwargs):
        raise OSError("gone")

    monkeypatch.setattr(
        "components.core.shared_store.json.dumps", gone
    )  # all files are there, the list is not
    with pytest.raises(OSError, match="gone"):
        first.send(folder)
    monkeypatch.undo()
    assert not second.has(folder_of(second))
    assert second.fetch(folder_of(second)) == 0


def test_damage_and_names_that_lead_out_are_refused(nodes):
    first, second = nodes
    folder = folder_of(first, log="1")
    first.send(folder)
    filesystem, place = fsspec.url_to_fs(first.url_of(folder))
    filesystem.pipe_file(f"{place}/log", b"other")
    with pytest.raises(ValueError, match="not what its folder's contents.json says"):
        second.fetch(folder_of(second))
    assert not (folder_of(second) / "log").exists()
    filesystem.pipe_file(f"{place}/contents.json", json.dumps({"../../x": "0"}).encode())
    with pytest.raises(ValueError, match="leads out of"):
        second.fetch(folder_of(second))


def test_single_files_come_in_their_newest_form(nodes):
    first, second = nodes
    mine, theirs = (Path(store.root) / "run" / "records" / "train.json" for store in nodes)
    assert not second.fetch_file(theirs)
    for text in ("1", "2"):
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text(text)
        first.send_file(mine)
        assert second.fetch_file(theirs)
        assert theirs.read_text() == text
    theirs.unlink()
    second.fetch_files(theirs.parent, ".json")
    assert theirs.read_text() == "2"


def test_whole_folders_are_found_by_pattern(nodes):
    first, second = nodes
    first.send(folder_of(first, log="1"))
    first.send_file(Path(first.root) / "run" / "train" / "log")
    assert second.folders("*/train") == [Path(second.root) / "run" / "train"]
    assert second.folders("*/personalize") == []


def test_what_was_forgotten_in_the_store_goes_here_too_and_what_it_does_not_know_stays(nodes):
    first, second = nodes
    other = folder_of(second, forgotten="2", checkpoints__big="3")
    assert second.fetch(other) == 0
    assert (other / "forgotten").exists()
    first.send(folder_of(first, log="1"))
    second.fetch(other, leave=("checkpoints",))
    assert sorted(path.name for path in other.iterdir()) == ["checkpoints", "log"]


def test_paths_outside_and_plain_folders_are_refused(nodes, tmp_path):
    with pytest.raises(ValueError, match="is not below"):
        nodes[0].url_of(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="expected a URL"):
        SharedStore(url=str(tmp_path), root="/x")
