"""A person is forgotten between two attempts of a run: it goes on, fails on nothing and repeats nothing."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from components.shards import close_plan, open_manifest, plan_forgetting, put_in_place
from components.training.launch import claim_folder
from tests.unit.training.made_runs import run_alone
from tests.unit.training.made_shards import made_shards
from tests.unit.training.test_left_out import BARE, STREAMED, noting


@pytest.mark.parametrize("reading", [{}, STREAMED], ids=["memory", "stream"])
def test_a_run_goes_on_without_a_person_and_repeats_nobody(make_job, base, tmp_path, reading):
    manifest = made_shards(tmp_path / "shards", base)
    manifest.save(tmp_path / "shards" / "manifest.json")
    seen: dict[int, tuple[str, ...]] = {}
    job = replace(
        make_job(steps=9, checkpoint_every=4, hook=noting(seen), **reading, **BARE), manifest=manifest
    )
    claim_folder(job)
    _, kept = run_alone(job)
    order = [key for step in range(4, 9) for key in seen[step]]

    folder = tmp_path / "shards"
    plan = plan_forgetting(folder, ["train-3"])
    put_in_place(folder, plan)
    close_plan(folder)
    gone = {sample.key for sample in plan.samples}
    assert len(gone) == 2

    without: dict[int, tuple[str, ...]] = {}
    later = replace(job, manifest=open_manifest(folder), hook=noting(without))
    claim_folder(later)  # the same run, on what is left
    run_alone(later, resume_from=kept[4])
    found = [key for step in range(4, 9) for key in without[step]]
    remaining = [key for key in order if key not in gone]
    assert found[: len(remaining)] == remaining  # as it would have come, in the same order
    assert not gone & {*found}
    visits = Counter(key for step in range(4) for key in seen[step]) + Counter(found)
    assert set(visits[key] for key in visits if key not in gone) <= {3, 4}
    assert Path(later.manifest.folder) == folder
