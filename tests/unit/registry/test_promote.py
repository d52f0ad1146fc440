"""The stage on a real registry (SQLite), with a few bytes as weights.

Most tests leave MLflow's packaging out, which takes seconds; the one that does not says so.
"""

import json
import os
from pathlib import Path

import pytest
import yaml

from components.core import RuntimeConfig
from components.registry import RegistryConfig, promote, resolve, stage
from components.registry.package import read_package
from components.registry.publish import publish
from components.registry.resolved import split_uri
from components.registry.store import pointed_at
from tests.unit.registry.conftest import Settings


def test_a_good_candidate_is_packaged_registered_and_becomes_champion(
    run, report, checkpoint, tracking, tmp_path, monkeypatch
):
    monkeypatch.setattr(stage, "publish", publish)  # the real one
    base = tmp_path / "base"
    (base / "unet").mkdir(parents=True)
    (base / "unet" / "weights.safetensors").write_bytes(b"base")
    promotion = run(report(), checkpoint(), model=Settings(base=str(base)))
    assert (promotion.decision, promotion.version) == ("promoted", "1")
    assert promotion.model_uri == f"models:/{run.store.name}/1"
    model = resolve(tracking, run.store.name, "champion")
    assert model.version == "1"
    assert model.adapter.read_bytes() == b"weights"
    assert model.adapter.with_suffix(".json").is_file()
    assert model.base == model.model["base"] == str(model.folder / "base")
    assert (model.folder / "base" / "unet" / "weights.safetensors").read_bytes() == b"base"
    assert model.face == {"base": "face"}
    card = (model.folder / "MODEL_CARD.md").read_text()
    for words in (
        "CC0-1.0 (680 photos)",
        "group south",
        "0.500 (0.450 to 0.550)",
        "Decision: promoted",
        "each the best of 8 candidates by the identity net",
    ):
        assert words in card
    assert not list((tmp_path / "promote").iterdir())


def test_a_rerun_does_not_register_twice(run, report, checkpoint):
    first, again = run(report(), checkpoint()), run(report(), checkpoint())
    assert (first.version, again.version) == ("1", "1")
    assert again.decision == "promoted"
    assert len(run.store.versions()) == 1


def test_a_base_that_was_moved_is_the_same_base(run, report, checkpoint):
    assert run(report(), checkpoint(), model=Settings(base="here/base")).version == "1"
    assert run(report(), checkpoint(), model=Settings(base="there/base")).version == "1"
    assert run(report(), checkpoint(weights=b"others")).version == "2"


def test_a_worse_candidate_is_kept_as_challenger_and_says_why(run, report, checkpoint):
    run(report(), checkpoint())
    worse = run(report(generated=0.4, generated_interval=(0.35, 0.45)), checkpoint("other", b"other"))
    assert (worse.decision, worse.version) == ("registered", "2")
    assert worse.reasons[0].startswith("failed: generated similarity 0.4000 is less than 0.4800")
    assert run.store.version("champion").version == 1
    assert run.store.version("challenger").version == 2
    assert "champion version 1" in run.store.version("2").tags["photoverse.reasons"]


def test_a_better_candidate_replaces_the_champion_and_remembers_it(run, report, checkpoint):
    run(report(), checkpoint())
    run(report(generated=0.4, generated_interval=(0.35, 0.45)), checkpoint("other", b"other"))
    better = run(report(generated=0.6), checkpoint("third", b"third"))
    assert (better.decision, better.version) == ("promoted", "3")
    assert run.store.version("champion").version == 3
    assert run.store.version("3").tags["photoverse.replaced"] == "1"
    assert run.store.version("challenger").version == 2


def test_a_challenger_that_is_promoted_later_is_no_challenger_any_more(run, report, checkpoint):
    assert run(report(no_face_rate=0.5), checkpoint()).decision == "registered"
    assert run(report(), checkpoint()).decision == "promoted"
    assert run.store.by_alias("challenger") is None
    assert len(run.store.versions()) == 1


def test_a_champion_that_fails_later_is_not_its_own_challenger(run, report, checkpoint):
    run(report(), checkpoint())
    assert run(report(no_face_rate=0.5), checkpoint()).decision == "registered"
    assert run.store.version("champion").version == 1
    assert run.store.by_alias("challenger") is None


def test_other_people_are_no_yardstick(run, report, checkpoint):
    run(report(), checkpoint())
    other = run(report(seed=1, generated=0.4, generated_interval=(0.35, 0.45)), checkpoint("other", b"other"))
    assert other.decision == "promoted"
    assert any("means are not compared" in reason for reason in other.reasons)


def test_figures_that_are_no_numbers_are_not_registered(run, report, checkpoint):
    promotion = run(report(generated=float("nan")), checkpoint())
    assert (promotion.decision, promotion.version, promotion.model_uri) == ("refused", None, None)
    assert run.store.versions() == []


def test_a_champion_without_a_ceiling_can_be_compared_with(run, report, checkpoint):
    run(report(ceiling=None), checkpoint())
    assert run(report(generated=0.6), checkpoint("other", b"other")).decision == "promoted"


def test_a_base_above_the_limit_is_named_and_not_copied(
    run, report, checkpoint, tmp_path, tracking, manifest
):
    base = tmp_path / "large"
    base.mkdir()
    (base / "weights.safetensors").write_bytes(b"x" * 1_100_000)
    promote(
        config=RegistryConfig(model_name=run.store.name, base_inside_mb=1),
        model=Settings(base=str(base)),
        face=Settings(),
        runtime=RuntimeConfig(),
        tracking=tracking,
        report=report(),
        checkpoint=checkpoint(),
        manifest=manifest,
    )
    model = resolve(tracking, run.store.name, "1")
    assert model.base == str(base)
    assert not (model.folder / "base").exists()


def test_a_missing_adapter_is_said(run, report, checkpoint):
    candidate = checkpoint()
    card = Path(candidate.adapter).with_suffix(".json")
    card.unlink()
    with pytest.raises(ValueError, match=str(card)):
        run(report(), candidate)


def test_an_unknown_alias_names_what_there_is(run, report, checkpoint, tracking):
    run(report(), checkpoint())
    with pytest.raises(ValueError, match=r"no version or alias 'nobody'.*registered: 1 \(champion\)"):
        resolve(tracking, run.store.name, "nobody")
    with pytest.raises(ValueError, match="registered: none"):
        resolve(tracking, "no-such-model", "1")


def test_a_whole_uri_is_understood(run, report, checkpoint, tracking):
    run(report(), checkpoint())
    assert resolve(tracking, "ignored", f"models:/{run.store.name}@champion").version == "1"
    assert resolve(tracking, "ignored", f"models:/{run.store.name}/1").version == "1"


@pytest.mark.parametrize(
    "uri", ["models:/", "models:/a", "models:/a/", "models:/@b", "models:/a/1/2", "runs:/a/1"]
)
def test_a_malformed_uri_is_refused(uri):
    with pytest.raises(ValueError, match="names no model"):
        split_uri(uri)


def test_a_package_of_a_newer_schema_is_refused(tmp_path):
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"schema_version": 2}))
    with pytest.raises(ValueError, match="schema 2"):
        read_package(tmp_path)


@pytest.mark.parametrize("before", [None, "sqlite:///elsewhere.db"])
def test_mlflow_is_pointed_back_to_where_it_was(tracking, monkeypatch, before):
    import mlflow

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
        if before:
            monkeypatch.setenv(name, before)
    with pointed_at(tracking):
        assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == tracking.uri
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
    assert os.environ.get("MLFLOW_REGISTRY_URI") == before
    assert tracking.uri not in (mlflow.get_tracking_uri(), mlflow.get_registry_uri())


def test_what_is_logged_has_no_machine_path_in_its_settings(run, report, checkpoint, tracking, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "x").write_text("x")
    run(report(), checkpoint(), model=Settings(base=str(base)))
    for name in ("settings.yaml", "MODEL_CARD.md"):
        assert str(tmp_path) not in (resolve(tracking, run.store.name, "1").folder / name).read_text()
    assert json.loads((resolve(tracking, run.store.name, "1").folder / "evaluation.json").read_text())
