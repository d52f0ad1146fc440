"""Damaged shards are left out as far as the config allows; the rest comes as it would have, none twice."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from components.shards import DamagedShard
from components.training.left_out import leave_out, read_left_out, samples_in
from components.training.tracking import read_history
from tests.unit.training.made_runs import run_alone

STREAMED = {"reader": {"memory_limit_mb": 0, "shuffle_window": 4}}
BARE = {"validation": {"timesteps": 1, "sample_people": 0}}


def noting(seen):
    def hook(rank, inputs):
        seen[inputs.step] = inputs.keys

    return hook


def train_shards(manifest):
    return [shard for shard in manifest.shards if shard.split == "train"]


def test_leaving_out_is_noted_and_limited(make_job, manifest):
    small = min(train_shards(manifest), key=lambda shard: shard.samples)
    fault = DamagedShard(f"shard {small.name} is damaged: cut", (small.name,))
    with pytest.raises(ValueError, match=r"damaged: cut; train\.damaged_share = 0 lets 0 of 24 samples"):
        leave_out(make_job("strict"), fault)
    job = make_job("lenient", damaged_share=0.4)
    leave_out(job, fault)
    assert read_left_out(job.folder) == {small.name}
    noted = json.loads((job.folder / "left_out.json").read_text())[small.name]
    assert noted == {"samples": small.samples, "fault": str(fault)}
    other = next(shard for shard in train_shards(manifest) if shard.name != small.name)
    with pytest.raises(ValueError, match=r"0\.4 lets 9 of 24 samples"):  # the two together are too many
        leave_out(job, DamagedShard("gone", (other.name,)))
    held = next(shard for shard in manifest.shards if shard.split == "heldout")
    with pytest.raises(ValueError, match="stopped: gone"):  # measures must not change their people
        leave_out(job, DamagedShard("gone", (held.name,)))


@pytest.mark.parametrize("reading", [{}, STREAMED], ids=["memory", "stream"])
def test_a_run_goes_on_without_a_shard_and_repeats_nothing(make_job, manifest, reading):
    small = min(train_shards(manifest), key=lambda shard: shard.samples)
    seen: dict[int, tuple[str, ...]] = {}
    job = make_job(steps=9, checkpoint_every=4, damaged_share=0.4, hook=noting(seen), **reading, **BARE)
    _, kept = run_alone(job)
    before = Counter(key for keys in seen.values() for key in keys)
    assert set(before.values()) == {3}  # 9 steps of 8 are three epochs of 24
    order = [key for step in range(4, 9) for key in seen[step]]
    without: dict[int, tuple[str, ...]] = {}
    again = make_job("again", steps=9, checkpoint_every=2, hook=noting(without), **reading, **BARE)
    _, later = run_alone(replace(again, left_out=frozenset({small.name})), resume_from=kept[4])
    found = [key for step in range(4, 9) for key in without[step]]
    lost = set(before) - set(found)
    assert len(lost) == small.samples
    remaining = [key for key in order if key not in lost]
    assert found[: len(remaining)] == remaining  # as it would have come, in the same order
    rows = [row for row in read_history(again.folder) if "loss" in row]
    assert {row["left_out_samples"] for row in rows} == {samples_in(manifest, [small.name])}
    resumed: dict[int, tuple[str, ...]] = {}
    third = make_job("third", steps=9, hook=noting(resumed), **reading, **BARE)
    run_alone(replace(third, left_out=frozenset({small.name})), resume_from=later[6])
    assert resumed == {step: without[step] for step in range(6, 9)}  # and exact from there, too


def test_three_epochs_with_four_interruptions_visit_each_sample_three_times(make_job, finished):
    """Interrupted anywhere, resumed from the last checkpoint: what counts is what the weights have seen."""
    seen: dict[int, tuple[str, ...]] = {}
    stops = [1, 4, 5, 8]
    note = noting(seen)

    def interrupt(rank, inputs):
        if stops and inputs.step == stops[0]:
            raise KeyboardInterrupt(stops.pop(0))
        assert seen.get(inputs.step, inputs.keys) == inputs.keys  # a step done again takes the same samples
        note(rank, inputs)

    job = make_job(steps=9, checkpoint_every=2, hook=interrupt, **BARE)
    while True:
        kept = sorted(job.folder.glob("kept-*"))
        try:
            run_alone(job, resume_from=kept[-1] if kept else None)
            break
        except KeyboardInterrupt:
            continue
    assert not stops
    assert set(Counter(key for keys in seen.values() for key in keys).values()) == {3}
    assert [row["step"] for row in read_history(job.folder) if "loss" in row] == list(range(1, 10))
