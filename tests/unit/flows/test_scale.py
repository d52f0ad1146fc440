"""The forecast: its arithmetic by hand, its limits, and that docs/SCALE.md shows what the code says."""

import json

import pytest

from flows.environment import PROJECT
from flows.scale import GB, HOUR, Hardware, Model, Work, forecast, load_rates, table


@pytest.fixture(scope="module")
def model() -> Model:
    return forecast()


def test_the_page_shows_what_the_code_says(model):
    page = (PROJECT / "docs" / "SCALE.md").read_text(encoding="utf-8")
    shown = page.split("<!-- forecast -->\n")[1].split("\n<!-- end -->")[0]
    assert shown == table(model), "run `photoverse scale` and put its words into docs/SCALE.md"


def test_rates_are_of_the_right_size():
    rates = load_rates()
    assert rates.unet_parameters == pytest.approx(865.9e6, rel=0.01)  # Stable Diffusion 2.1
    assert 1.9 < rates.unet_training / rates.unet_forward < 3.1  # a backward pass costs one or two forwards
    assert rates.pooled_features_bytes == pytest.approx(5 * 2 * 1280 * 2, rel=0.01)
    assert rates.all_features_bytes == pytest.approx(3.29e6, rel=0.01)  # 230 GB for the 70,000 of FFHQ


def test_the_slowest_resource_decides(model):
    hand = 70_000 * model.rates.prepare_core_s / (8 * model.hardware.cores_per_gpu)
    found = model.prepare(70_000, 8)
    assert (found.bottleneck, found.seconds) == ("cores", pytest.approx(hand))
    many = Model(model.rates, Hardware(cores_per_gpu=512, node_bytes_s=1e12))
    assert many.prepare(70_000, 8).bottleneck == "gpus"
    assert Model(model.rates, Hardware(node_bytes_s=1e6)).prepare(70_000, 8).bottleneck == "network"


def test_training_by_hand(model):
    """60,000 steps of 64 on one GPU: operations over speed; no gradients travel inside a node."""
    flops = model.rates.unet_training + 0.1 * 3 * model.rates.vae_decode
    hours = 60_000 * 64 * flops / model.hardware.gpu_flops / HOUR
    assert model.train(70_000, 1).seconds / HOUR == pytest.approx(hours)
    assert model.train(70_000, 8).seconds / HOUR == pytest.approx(hours / 8)
    assert model.train(70_000, 64).seconds / HOUR > hours / 64  # gradients between 8 nodes
    larger = Model(model.rates, model.hardware, Work(batch=512))
    assert larger.train(70_000, 64).seconds < model.train(70_000, 64).seconds  # fewer exchanges


def test_what_does_not_fit_a_nodes_disk_is_read_again(model):
    fits = model.train(1_000_000, 8)
    assert fits.traffic == pytest.approx(1e6 * model.sample_bytes())
    small = Model(model.rates, Hardware(node_disk_tb=0.01))
    assert small.train(1_000_000, 8).traffic > 3 * fits.traffic


def test_memory_by_zero_stage(model):
    stages = [model.memory_gb(8, stage) for stage in range(4)]
    assert stages == sorted(stages, reverse=True)
    assert stages[0] - stages[1] == pytest.approx(12 * model.work.trained * 7 / 8 / GB)
    assert model.memory_gb(1, 0) == pytest.approx(model.memory_gb(1, 2))  # one GPU has nobody to share with
    most = model._most_trained(8, 1) * 1e6
    assert model.memory_gb(8, 1, most) <= model.hardware.gpu_memory_gb < model.memory_gb(8, 1, most + 1e6)


def test_assumptions_can_be_set_and_are_checked():
    dear = forecast({"hardware": {"gpu_hour": 3.0}})
    assert dear.money(HOUR, 8) == 24
    with pytest.raises(ValueError, match="hardware.gpus"):
        forecast({"hardware": {"gpus": 8}})


def test_the_command_prints_it(capsys):
    from flows.cli import main

    assert main(["scale", "--photos", "1000", "--gpus", "2", "--set", "hardware.gpu_hour=0"]) == 0
    assert "| 1,000 | 2 |" in (said := capsys.readouterr().out)
    assert "$0" in said
    assert set(json.loads((PROJECT / "infra/scale.json").read_text())) == set(load_rates().model_dump())
