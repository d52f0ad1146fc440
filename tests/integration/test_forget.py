"""A person is forgotten in what stages really made, and training on Ray goes on without.

Slow: `pytest -m slow tests/integration/test_forget.py`; about two minutes.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from components.core import ShardManifest, load_yaml
from components.prepare import forget_in_set
from components.shards import find_samples, load_split, open_manifest, verify_shards
from components.training.launch import claim_folder, launch
from flows.cli import main
from flows.config import PipelineConfig
from flows.stages import execute
from tests.integration.made_training import all_of, disturbed_job, kill, noted, noting, once, visits

pytestmark = pytest.mark.slow
STREAMED = {"reader": {"memory_limit_mb": 0, "shuffle_window": 4}}


@pytest.mark.parametrize("reading", [{}, STREAMED], ids=["memory", "stream"])
def test_a_run_that_was_killed_goes_on_without_a_person_and_repeats_nobody(
    parts, ray_local, tmp_path, reading
):
    manifest = parts["manifest"]
    copy = Path(shutil.copytree(manifest.folder, tmp_path / "shards"))
    here = manifest.model_copy(update={"folder": str(copy)})
    here.save(copy / "manifest.json")
    before, after = tmp_path / "before", tmp_path / "after"
    hook = all_of(once(1, 12, tmp_path / "marker", kill()), noting(before))
    settings = reading | {"checkpoint_every": 3, "max_failures": 0}
    job = disturbed_job(parts | {"manifest": here}, tmp_path / "run", hook, **settings)
    with pytest.raises(RuntimeError, match="the same run name goes on from the last"):
        launch(job)
    done = forget_in_set("train-3", copy)
    gone = {sample.key for sample in done.samples}
    assert (len(gone), done.left) == (2, ())
    job = replace(job, manifest=open_manifest(copy), hook=noting(after))
    claim_folder(job)  # the same run still
    assert launch(job)["step"] == 20
    start = min(int(note.name[:4]) for note in after.iterdir())
    assert 9 <= start <= 12
    seen = visits(before, range(start)) + visits(after, range(start, 20))
    kept = [count for key, count in seen.items() if key not in gone]
    assert len(kept) == 22
    assert max(kept) - min(kept) <= 1  # whole epochs and a part of one, none twice in it
    assert not gone & {*noted(after, range(start, 20))}


def persons(manifest: ShardManifest) -> set[str]:
    splits = [split for split, count in manifest.samples.items() if count]
    return {s["meta.json"]["person"] for split in splits for s in load_split(manifest, split, ())}


def test_stages_never_bring_a_person_back(tiny_profile, tmp_path, ray_local, capsys, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    root = tmp_path / "runs"
    values = load_yaml(tiny_profile) | {"root": str(root), "name": "one"}
    config = PipelineConfig.parse(values, source="a test")
    records = root / "one" / "records"
    execute("portraits", config, records / "portraits.json")
    first = execute("prepare", config, records / "prepare.json")
    everybody = persons(first)
    one, other = sorted(everybody)[0], sorted(everybody)[-1]
    for person in (one, other):
        held = find_samples(Path(first.folder), [person])
        assert main(["forget", "--person", person, "--root", str(root)]) == 0
        said = capsys.readouterr().out
        assert all(f"removed {sample.key} from {first.folder}" in said for sample in held)
        assert "0 left" in said
    assert persons(open_manifest(Path(first.folder))) == everybody - {one, other}
    again = execute("prepare", config, records / "prepare.json")  # done before: nothing is made
    assert verify_shards(again) == []
    assert again == ShardManifest.load(Path(first.folder) / "record.json")
    assert persons(again) == everybody - {one, other}
    settings = values["prepare"] | {"samples_per_shard": 5}  # another set of the same photos
    new = PipelineConfig.parse(values | {"name": "two", "prepare": settings}, source="a test")
    (root / "two").mkdir()
    shutil.copytree(records, root / "two" / "records")
    made = execute("prepare", new, root / "two" / "records" / "prepare.json")
    assert made.folder != first.folder
    assert persons(made) == everybody - {one, other}
    assert verify_shards(made) == []
