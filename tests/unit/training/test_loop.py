"""Whole runs in one process: exact resume, any micro batch and ZeRO stage, what a run leaves behind."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from components.face import FaceConfig
from components.training.checkpoint import check_checkpoint
from components.training.export import full_weights
from components.training.tracking import read_history
from tests.unit.training.made_runs import made_job, made_worker, run_alone

ADAPTER = "adapter.safetensors"
BARE = {"validation": {"timesteps": 1, "sample_people": 0}}  # for tests that look at losses and weights alone
EXACT = ("step", "loss", "diffusion", "face", "text_regularizer", "visual_regularizer", "gradient_norm")


def losses(folder):
    return [{name: row[name] for name in EXACT} for row in read_history(folder) if "loss" in row]


def test_a_resumed_run_is_bitwise_the_undisturbed_one(make_job, run):
    job = make_job("whole", ema_decay=0.9, log_every=2)
    whole, kept = run(job)
    again = make_job("again", ema_decay=0.9, log_every=2)
    resumed, _ = run(again, resume_from=kept[3])
    expected, found = full_weights(whole.engine, whole.adapter), full_weights(resumed.engine, resumed.adapter)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (
        losses(again.folder) == losses(job.folder)[1:]
    )  # steps 4 and 6; the sum of step 3 came with the checkpoint
    assert (again.folder / ADAPTER).read_bytes() == (job.folder / ADAPTER).read_bytes()


@pytest.mark.parametrize("stage", [0, 2])
def test_the_averaged_weights_are_what_is_saved(make_job, run, stage):
    job = make_job(ema_decay=0.99, steps=3, zero_stage=stage, **BARE)
    worker, _ = run(job)
    saved = load_file(job.folder / ADAPTER)
    assert all(torch.equal(saved[name], value) for name, value in worker.ema.average.items())
    last = full_weights(worker.engine, worker.adapter)
    assert stage == 0 or any(not torch.equal(saved[name], last[name]) for name in last)


def test_a_run_is_a_function_of_its_seed(make_job, run, finished):
    same, other = make_job("same"), make_job("other", seed=1, steps=1, **BARE)
    run(same)
    run(other)
    expected = losses(finished[0].folder)
    assert losses(same.folder) == expected
    assert losses(other.folder)[0] != expected[0]


def test_accumulation_gives_the_losses_of_the_whole_batch(make_job, run, finished):
    parts = make_job("parts", micro_batch_size=2, **BARE)
    run(parts)
    for one, other in zip(losses(finished[0].folder), losses(parts.folder), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_stages_agree(make_job, run, finished, stage):
    steps = 2 if stage == 3 else 6  # stage 3 is slow on a CPU
    plain, zero = finished[0], make_job("zero", zero_stage=stage, steps=steps, **BARE)
    worker, _ = run(zero)
    for one, other in zip(losses(plain.folder)[:steps], losses(zero.folder), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert load_file(zero.folder / ADAPTER).keys() == load_file(plain.folder / ADAPTER).keys()
    if stage == 3:
        return
    expected, found = (
        full_weights(finished[1].engine, finished[1].adapter),
        full_weights(worker.engine, worker.adapter),
    )
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("stage", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_zero_runs_resume_bitwise(make_job, run, stage):
    job, again = (make_job(name, zero_stage=stage, **BARE) for name in ("whole", "again"))
    _, kept = run(job)
    run(again, resume_from=kept[3])
    assert losses(again.folder) == losses(job.folder)[3:]
    assert (again.folder / ADAPTER).read_bytes() == (job.folder / ADAPTER).read_bytes()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_what_is_predicted_is_read_from_the_bases_scheduler(base, manifest, finished, tmp_path, kind):
    other = shutil.copytree(base, tmp_path / "base")
    path = other / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": kind}))
    job = made_job(tmp_path / "run", other, manifest, steps=1, **BARE)
    worker, _ = run_alone(job)
    assert worker.objective.noise_scheduler.config.prediction_type == kind
    found, recorded = losses(job.folder)[0]["diffusion"], losses(finished[0].folder)[0]["diffusion"]
    assert (found == recorded) == (kind == "v_prediction")  # that of the tiny base


def test_only_the_adapter_is_trained(finished):
    job, worker, _ = finished
    unet_and_text = {
        name: p for name, p in worker.engine.module.named_parameters() if not name.startswith("adapter.")
    }
    from components.model import load_base

    fresh = load_base(job.model)
    for name, parameter in fresh.unet.named_parameters():
        trained = unet_and_text.get(f"unet.{name}")
        if trained is None:  # peft moves the layer below its LoRA
            path, _, leaf = name.rpartition(".")
            trained = unet_and_text[f"unet.{path}.base_layer.{leaf}"]
        assert torch.equal(parameter, trained), name
        assert not trained.requires_grad


def test_what_a_run_leaves(finished):
    job, _, kept = finished
    outcome = json.loads((job.folder / "outcome.json").read_text())
    assert outcome["step"] == 6
    assert outcome["people"] == 4
    low, high = outcome["reference_gain_interval"]
    assert low <= outcome["reference_gain"] <= high
    assert math.isfinite(outcome["reference_gain_other_view"])
    card = json.loads((job.folder / "adapter.json").read_text())
    face = card["training_run"].pop("face")
    assert FaceConfig.model_validate(face) == job.face
    assert card["training_run"] == {"run_name": "test", "step": 6, "mlflow_run_id": None}
    weights = load_file(job.folder / ADAPTER)
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    grid = Image.open(job.folder / "samples" / "step_000006.png")
    assert grid.size == (4 * 66, 2 * 66)
    assert sorted(kept) == [3, 6]
    rows = [row for row in read_history(job.folder) if "samples_per_second" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(0 <= row["data_wait_share"] <= 1 for row in rows)


def test_the_trained_adapter_loads_again(finished):
    from components.model import load_adapter, load_base

    job, worker, _ = finished
    parts = load_base(job.model)
    loaded = load_adapter(job.folder / ADAPTER, parts.unet, parts.text_encoder, parts.image_encoder)
    for name, weight in full_weights(worker.engine, worker.adapter).items():
        assert torch.equal(loaded.state_dict()[name], weight)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_samples(make_job, run):
    def poison(rank, inputs):
        if inputs.step == 2:
            with torch.no_grad():
                next(worker_holder[0].adapter.parameters()).fill_(float("nan"))

    job = make_job(hook=poison)
    worker_holder = [made_worker(job)]
    worker_holder[0].resume(None)
    worker_holder[0].run(lambda step, folder: pytest.fail("nothing may be saved after the fault"))
    error = json.loads((job.folder / "outcome.json").read_text())["error"]
    assert "the loss is nan at step 3" in error
    assert error.count("-0") >= 8  # the batch's keys
    assert not (job.folder / ADAPTER).exists()


@pytest.mark.parametrize("damage", ["truncate", "remove", "no_list"])
def test_a_damaged_checkpoint_is_refused_by_name(finished, tmp_path, damage):
    whole = finished[2][3]
    broken = shutil.copytree(whole, tmp_path / "broken")
    file = broken / "state.safetensors"
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "remove":
        file.unlink()
    else:
        file = broken / "files.json"
        file.unlink()
    with pytest.raises(ValueError, match=file.name):
        check_checkpoint(broken)
    check_checkpoint(whole)


def test_a_checkpoint_holds_the_adapter_alone_and_no_pickle(finished):
    _, worker, kept = finished
    assert sorted(path.name for path in kept[6].iterdir()) == [
        "files.json",
        "state.json",
        "state.safetensors",
    ]
    names = {name for name, _ in worker.adapter.named_parameters()}
    found = load_file(kept[6] / "state.safetensors")
    assert found.keys() == {
        f"{kind}/{name}" for kind in ("weight", "exp_avg", "exp_avg_sq") for name in names
    }


@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_may_go_on_at_another_zero_stage(make_job, run, finished, stage):
    job, _, kept = finished
    other = make_job("other", zero_stage=stage, **BARE)
    run(other, resume_from=kept[3])
    for one, two in zip(losses(job.folder)[3:], losses(other.folder), strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-5)


def test_a_checkpoint_of_another_adapter_is_refused(make_job, finished):
    job = make_job("other")
    job = replace(job, model=job.model.model_copy(update={"feature_layers": (1, 2)}))
    with pytest.raises(ValueError, match="does not fit the adapter"):
        made_worker(job).resume(finished[2][3])


def test_gradient_checkpointing_changes_memory_not_numbers(make_job, run, finished):
    job = make_job(steps=2, gradient_checkpointing=True, **BARE)
    worker, _ = run(job)
    assert worker.engine.module.unet.is_gradient_checkpointing
    for one, other in zip(losses(finished[0].folder), losses(job.folder), strict=False):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.slow  # bfloat16 without AVX512-BF16 is slow even at this size
def test_half_precision_trains_float32_masters_and_resumes_bitwise(make_job, run, finished):
    jobs = []
    for name, start in (("whole", None), ("again", 3)):
        job = make_job(name, **BARE)
        job = replace(job, runtime=job.runtime.model_copy(update={"dtype": "bfloat16"}))
        _, kept = run(job, resume_from=None if start is None else jobs[0][1][start])
        jobs.append((job, kept))
    whole, again = (job.folder for job, _ in jobs)
    assert losses(again) == losses(whole)[3:]
    assert (again / ADAPTER).read_bytes() == (whole / ADAPTER).read_bytes()
    weights = load_file(whole / ADAPTER)
    assert any((weight != weight.bfloat16().float()).any() for weight in weights.values())
    for one, other in zip(losses(finished[0].folder), losses(whole), strict=True):
        assert one["diffusion"] == pytest.approx(other["diffusion"], rel=0.05)
