"""A run that begins with an adapter's weights: where it stands at once, and what cannot be begun with."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from components.core import sha256_file
from components.model import ModelConfig
from components.training.config import TrainConfig
from components.training.launch import claim_folder
from components.training.start import check_start
from tests.unit.training.made_runs import made_worker

BARE = {"validation": {"timesteps": 1, "sample_people": 0}}
ADAPTER = "adapter.safetensors"


def test_a_run_begins_where_the_other_ended(make_job, run, finished):
    before = finished[0].folder / ADAPTER
    job = make_job("later", steps=1, start_from=str(before), **BARE)
    started, ended = dict(made_worker(job).adapter.state_dict()), load_file(before)
    assert all(torch.equal(started[name], ended[name]) for name in ended)
    run(job)
    about = json.loads((job.folder / "adapter.json").read_text())["training_run"]
    assert about["started_from"] == sha256_file(before)
    assert "started_from" not in json.loads(before.with_suffix(".json").read_text())["training_run"]
    after = load_file(job.folder / ADAPTER)
    assert any(not torch.equal(after[name], ended[name]) for name in ended)


def test_adapter_files_are_written_in_the_type_asked_for(make_job, run, finished):
    job = make_job(
        "half", steps=1, start_from=str(finished[0].folder / ADAPTER), export_dtype="float16", **BARE
    )
    run(job)
    assert {weight.dtype for weight in load_file(job.folder / ADAPTER).values()} == {torch.float16}
    assert {weight.dtype for weight in load_file(finished[0].folder / ADAPTER).values()} == {torch.float32}


@pytest.mark.parametrize("targets", ["all", ("to_q", "to_k", "to_v")])
def test_a_wider_lora_begins_where_the_narrow_one_ended(make_job, finished, targets):
    before = finished[0].folder / ADAPTER
    job = make_job("wider", start_from=str(before), **BARE)
    job = replace(job, model=job.model.model_copy(update={"lora_targets": targets}))
    check_start(job.config, job.model)
    started, ended = dict(made_worker(job).adapter.state_dict()), load_file(before)
    assert all(torch.equal(started[name], ended[name]) for name in ended)
    added = started.keys() - ended.keys()
    assert added
    assert all(name.startswith("lora.") for name in added)
    assert not any(started[name].any() for name in added if name.endswith(".b"))


def test_the_same_weights_may_lie_elsewhere_and_others_are_another_run(make_job, run, finished, tmp_path):
    before = finished[0].folder / ADAPTER
    job = make_job("claimed", start_from=str(before))
    claim_folder(job)
    for kind in (".safetensors", ".json"):
        (tmp_path / f"moved{kind}").write_bytes(before.with_suffix(kind).read_bytes())
    moved = job.config.model_copy(update={"start_from": str(tmp_path / "moved.safetensors")})
    claim_folder(replace(job, config=moved))
    with pytest.raises(ValueError, match="started_from differ"):
        claim_folder(replace(job, config=job.config.model_copy(update={"start_from": None})))


@pytest.mark.parametrize(
    ("name", "switches", "message"),
    [
        ("nowhere.safetensors", {}, r"no adapter at .*nowhere\.safetensors"),
        (
            ADAPTER,
            {"lora_targets": ("to_q",)},
            r"was trained with lora_targets \['to_k', 'to_v'\], not \['to_q'\]",
        ),
        (ADAPTER, {"lora_rank": 2}, "was trained with lora_rank 4, not 2: set model alike"),
    ],
)
def test_what_cannot_be_begun_with_is_told_before_anything_starts(finished, name, switches, message):
    config = TrainConfig(start_from=str(finished[0].folder / name))
    with pytest.raises(ValueError, match=message):
        check_start(config, ModelConfig(**switches))
