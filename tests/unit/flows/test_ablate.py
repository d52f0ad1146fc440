"""Variants as settings, one data set for all, what is kept and what a failure costs; no stage is run."""

import json
from pathlib import Path

import pytest
import yaml

from components.core import Checkpoint, EvaluationReport, IdentityFigures, PhotoFolder, ShardManifest
from components.evaluation import VARIANTS, AblationConfig
from flows import ablate
from flows.ablate import ablation_config, open_variants, run_variants, write_table
from flows.config import load_config
from tests.unit.evaluation.test_ablation import planted


@pytest.fixture
def profile(tmp_path) -> str:
    path = tmp_path / "mine.yaml"
    settings = {
        "root": str(tmp_path / "runs"),
        "train": {"steps": 70, "fusion": {"warmup_steps": 9}},
        "ablation": {"settings": {"train": {"steps": 7}, "evaluation": {"pictures_per_reference": 2}}},
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return str(path)


def opened(profile, variants=None, **overrides):
    """The ablation's settings and its variants', with the records of the data in place."""
    config = ablation_config(profile, "abl", variants, overrides)
    records = Path(config.root) / "abl" / "records"
    records.mkdir(parents=True, exist_ok=True)
    PhotoFolder(folder="p", people={}, fingerprint="people").save(records / "portraits.json")
    ShardManifest(
        folder="s", shards=(), samples={}, rejects=0, rejects_file="r", feature_shape=(1, 1, 1),
        latent_shape=(1, 1, 1), fingerprint="shards",
    ).save(records / "prepare.json")  # fmt: skip
    return config, open_variants(config, profile, overrides)


def test_every_variant_of_the_settings_is_described_and_the_other_way_round():
    assert set(VARIANTS) == set(AblationConfig().variants)


def test_variants_differ_from_the_full_method_in_their_part_alone(profile):
    _, runs = opened(profile)
    assert list(runs) == list(VARIANTS)
    full = runs["full"][0].model_dump(mode="json")
    for variant, (config, _) in runs.items():
        own = config.model_dump(mode="json")
        assert own["name"] == f"abl.{variant}"
        changed = differing(full, own | {"name": full["name"]})
        assert changed == expected(VARIANTS[variant].overrides), variant


def differing(one, other, prefix="") -> set[str]:
    """Returns the dotted keys in which two nested settings differ."""
    found = set()
    for key, value in one.items():
        if isinstance(value, dict):
            found |= differing(value, other[key], f"{prefix}{key}.")
        elif value != other[key]:
            found.add(prefix + key)
    return found


def expected(overrides, prefix="") -> set[str]:
    found = set()
    for key, value in overrides.items():
        found |= expected(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def test_a_branch_that_is_off_is_off_in_training_and_in_the_pictures(profile):
    import numpy as np

    from components.training.fusion import eq4_random_fusion

    _, runs = opened(profile)
    draws = np.random.default_rng(0).random(1000)
    for variant, gamma, sigma in (("no-visual-branch", 1, 0), ("no-text-branch", 0, 1)):
        config = runs[variant][0]
        for step in (0, 5, 1000):
            trained = eq4_random_fusion(draws, step, config.train.fusion)
            assert (trained[0] == gamma).all(), variant
            assert (trained[1] == sigma).all(), variant
        assert (config.evaluation.dials.gamma, config.evaluation.dials.sigma) == (gamma, sigma)
    lora = runs["no-lora"][0]
    assert (lora.train.alpha, lora.evaluation.dials.alpha) == (0, 0)


def test_the_ablations_own_settings_lie_under_what_the_caller_says(profile):
    config, runs = opened(profile, ["no-lora"], train={"steps": 3})
    assert config.train.steps == 3
    assert {run.train.steps for run, _ in runs.values()} == {3}
    assert {run.evaluation.pictures_per_reference for run, _ in runs.values()} == {2}
    assert list(runs) == ["full", "no-lora"]


def test_data_are_prepared_once_and_shared(profile):
    _, runs = opened(profile, ["no-lora"])
    for _, file in runs.values():
        assert json.loads((file.parent / "records" / "prepare.json").read_text())["fingerprint"] == "shards"
        assert load_config(file).name == file.parent.name


def test_an_unknown_variant_is_named(profile):
    with pytest.raises(ValueError, match="no-magic"):
        ablation_config(profile, "abl", ["no-magic"], {})


class State:
    def __init__(self, good: bool) -> None:
        self.good, self.message = good, "burnt"

    def is_completed(self) -> bool:
        return self.good


def test_one_failure_never_ends_the_others(profile, monkeypatch):
    _, runs = opened(profile, ["no-lora", "no-face-loss"])
    called = []

    def task(name, variant):
        def run(stage, config, file, label, return_state):
            called.append(label)
            return State(good=label != "train-no-lora")

        return run

    class Logger:
        def error(self, *words):
            called.append("said")

    monkeypatch.setattr(ablate, "_task", task)
    monkeypatch.setattr(ablate, "get_run_logger", Logger)
    assert run_variants(runs, side_by_side=1) == ["no-lora"]
    assert called == [
        "train-full", "evaluate-full", "train-no-lora", "said", "train-no-face-loss", "evaluate-no-face-loss",
    ]  # fmt: skip


class Future:
    def __init__(self, label, state):
        self.label, self.state = label, state

    def wait(self):
        pass


@pytest.mark.parametrize("lanes", [2, 8])
def test_side_by_side_each_lane_takes_the_next_variant_when_the_one_before_ended(profile, monkeypatch, lanes):
    _, runs = opened(profile)
    waits = {}

    class Task:
        def submit(self, stage, config, file, label, wait_for):
            waits[label] = [getattr(one, "expr", one) for one in wait_for]
            waits[label] = [getattr(one, "label", one) for one in waits[label]]
            return Future(label, State(good="lora" not in label))

    monkeypatch.setattr(ablate, "_task", lambda name, variant: Task())
    monkeypatch.setattr(ablate, "allow_failure", lambda future: future)
    assert run_variants(runs, side_by_side=lanes) == ["no-lora"]
    names = list(runs)
    for number, variant in enumerate(names):
        before = names[number - lanes] if number >= lanes else None
        assert waits[f"evaluate-{variant}"] == [f"train-{variant}"]
        assert waits[f"train-{variant}"] == ([f"evaluate-{before}"] if before else [])


def test_the_table_has_what_ended_well_and_names_the_rest(profile, tmp_path):
    from PIL import Image

    config, runs = opened(profile, ["no-visual-branch", "no-lora"])
    for variant in ("full", "no-visual-branch"):
        file = runs[variant][1]
        folder = file.parent / "evaluate"
        folder.mkdir()
        report = planted(-0.4 if variant != "full" else 0.0)
        (folder / "report.json").write_text(json.dumps(report))
        Image.new("RGB", (64, 64)).save(folder / "x.png")
        Checkpoint(
            run_name=variant, folder="f", adapter="a", step=7, reference_gain=0.1,
            reference_gain_interval=(0, 1),
        ).save(file.parent / "records" / "train.json")  # fmt: skip
        figures = IdentityFigures(
            generated=0.5, generated_interval=(0, 1), floor=0, base_alone=0, ceiling=1, retrieval_top1=0
        )
        EvaluationReport(
            report_json=str(folder / "report.json"), report_html="r", people=30, identity=figures
        ).save(file.parent / "records" / "evaluate.json")
    record = write_table(config, runs, ["no-lora"], "mine")
    assert (record.count_out, record.missing) == (2, ("no-lora",))
    assert "steps: 7" in (Path(record.folder) / "ablation.md").read_text()
