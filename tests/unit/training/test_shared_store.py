"""Training where nodes share a store and no folder: shards from their URL, files through the store."""

import uuid
from dataclasses import replace
from pathlib import Path

import fsspec

from components.core import SharedStore
from components.training.checkpoint import last_whole
from components.training.launch import checkpoint_storage, claim_folder
from components.training.store import RAY_LIST, newest_unlisted
from components.training.tracking import read_history
from components.training.worker import unlisted
from tests.unit.training.made_runs import run_alone
from tests.unit.training.test_store import checkpoint, listed

BARE = {"validation": {"timesteps": 1, "sample_people": 0}}


def test_what_rank_0_writes_comes_to_other_nodes_and_shards_are_read_where_they_lie(
    make_job, finished, tmp_path
):
    job = make_job(**BARE)
    url = f"memory://{uuid.uuid4().hex}"
    filesystem, place = fsspec.url_to_fs(f"{url}/shards")
    filesystem.put(f"{job.manifest.folder}/", f"{place}/", recursive=True)
    store = SharedStore(url=f"{url}/runs", root=str(job.folder.parent))
    manifest = job.manifest.model_copy(update={"folder": f"{url}/shards"})
    job = replace(job, store=store, manifest=manifest)
    claim_folder(job)
    run_alone(job)
    other = replace(job, folder=tmp_path / "other" / job.folder.name)
    other = replace(other, store=store.model_copy(update={"root": str(tmp_path / "other")}))
    other.fetch()
    expected = finished[0].folder
    adapters = [(folder / "adapter.safetensors").read_bytes() for folder in (other.folder, expected)]
    assert adapters[0] == adapters[1]
    logs = [[row["loss"] for row in read_history(at) if "loss" in row] for at in (other.folder, expected)]
    assert logs[0] == logs[1]
    assert (other.folder / "outcome.json").is_file()
    assert not (other.folder / "progress.json").exists()  # sent by itself, and often


def test_a_checkpoint_that_ray_did_not_note_is_taken_up_from_the_store(make_job, tmp_path):
    job, local = make_job(**BARE), tmp_path / "local"
    job = replace(job, store=SharedStore(url=f"memory://{uuid.uuid4().hex}", root=str(job.folder.parent)))
    url = f"{job.checkpoints}/{job.run_name}"
    filesystem, place = fsspec.url_to_fs(url)
    assert newest_unlisted(url) is None
    for name in ("checkpoint_1", "checkpoint_2", "checkpoint_3"):
        checkpoint(local / name, whole=name != "checkpoint_3")
    filesystem.put(f"{local}/", f"{place}/", recursive=True)
    assert newest_unlisted(url) == "checkpoint_2"
    assert not filesystem.exists(f"{place}/checkpoint_3")
    with unlisted(replace(job, resume_from=Path("anywhere/checkpoint_2"))) as folder:
        assert last_whole(folder).name == "checkpoint_2"
    listed(local, "checkpoint_1")
    filesystem.put_file(local / RAY_LIST, f"{place}/{RAY_LIST}")
    assert newest_unlisted(url) == "checkpoint_2"
    listed(local, "checkpoint_1", "checkpoint_2")
    filesystem.put_file(local / RAY_LIST, f"{place}/{RAY_LIST}")
    assert newest_unlisted(url) is None


def test_checkpoints_go_to_the_store_itself(make_job):
    job = make_job(**BARE)
    assert checkpoint_storage(job) == {"storage_path": str(job.folder / "checkpoints")}
    store = SharedStore(url=f"memory://{uuid.uuid4().hex}/runs", root=str(job.folder.parent))
    storage = checkpoint_storage(replace(job, store=store))
    storage["storage_filesystem"].create_dir(storage["storage_path"], recursive=True)
    with storage["storage_filesystem"].open_output_stream(f"{storage['storage_path']}/file") as stream:
        stream.write(b"1")
    filesystem, place = fsspec.url_to_fs(store.url_of(job.folder))
    assert filesystem.cat_file(f"{place}/checkpoints/file") == b"1"
    assert Path(store.root) == job.folder.parent
