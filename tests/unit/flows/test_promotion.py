"""`photoverse promote`, `rollback` and `history` on the records of a run and a real registry."""

import json
import shutil
from pathlib import Path

import pytest

from components.core import Checkpoint, EvaluationReport, IdentityFigures, ShardManifest
from components.registry import stage
from flows.cli import FAILED, OK, REFUSED, main
from flows.config import open_run, resolve


def finished_run(root: Path, name: str, generated: float, no_face_rate: float = 0.0) -> None:
    """Makes the folder of a run that was trained and evaluated."""
    records = open_run(resolve("portraits", {"root": str(root)}, name=name)).parent / "records"
    adapter = records.parent / "adapter.safetensors"
    adapter.write_bytes(name.encode())
    adapter.with_suffix(".json").write_text("{}")
    report = records.parent / "report.json"
    pictures = [{"reference": "a"}]
    report.write_text(json.dumps({"config": {"dials": {}}, "pictures": pictures, "judge_marks": {}}))
    ShardManifest(
        folder="s", shards=(), samples={"train": 5}, rejects=0, rejects_file="r", feature_shape=(1, 1, 1),
        latent_shape=(1, 1, 1), licences={"CC0-1.0": 5},
    ).save(records / "prepare.json")  # fmt: skip
    Checkpoint(
        run_name=name, folder=str(records.parent), adapter=str(adapter), step=1, reference_gain=0.1,
        reference_gain_interval=(0.05, 0.15),
    ).save(records / "train.json")  # fmt: skip
    identity = IdentityFigures(
        generated=generated, generated_interval=(generated - 0.05, generated + 0.05), floor=0, base_alone=0,
        ceiling=0.8, retrieval_top1=0.9, no_face_rate=no_face_rate,
    )  # fmt: skip
    EvaluationReport(
        report_json=str(report), report_html="r", people=40, count_out=200, identity=identity
    ).save(records / "evaluate.json")


def light_publish(store, package, checkpoint, tags):
    """Makes a version of the package, kept in the run's folder, without logging a pyfunc."""
    place = Path(checkpoint.folder) / "kept"
    shutil.copytree(package, place)
    if not store.versions():
        store.client.create_registered_model(store.name)
    return str(store.client.create_model_version(store.name, str(place), tags=tags).version)


def test_the_champion_moves_by_hand_and_back_and_all_of_it_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stage, "publish", light_publish)
    root = ["--root", str(tmp_path)]
    finished_run(tmp_path, "good", 0.5)
    finished_run(tmp_path, "faceless", 0.6, no_face_rate=0.9)

    assert main(["promote", "good", *root, "--dry-run"]) == OK
    said = capsys.readouterr().out
    assert "passed: lower end of generated similarity 0.4500 is above" in said
    assert "base (Apache-2.0)" not in said
    assert "good would be promoted: nothing was changed" in said
    assert main(["history", *root]) == OK
    assert "nothing was decided yet" in capsys.readouterr().out
    assert not (tmp_path / "good" / "records" / "promote.json").exists()

    assert main(["promote", "good", *root]) == OK
    assert "good is promoted: models:/photoverse/1" in capsys.readouterr().out
    assert main(["promote", "faceless", *root]) == FAILED
    assert "failed: share of pictures without a face 0.9000" in capsys.readouterr().out
    assert main(["promote", "faceless", *root, "--by-hand", "a demo of hats"]) == OK
    capsys.readouterr()
    assert main(["rollback", *root, "--reason", "people want faces"]) == OK
    assert "champion: version 2 -> version 1" in capsys.readouterr().out
    assert main(["history", *root]) == OK
    lines = [line for line in capsys.readouterr().out.splitlines() if "version" in line[:80]]
    actions = [line.split(": ", 1)[1] for line in lines if not line.startswith(" ")]
    assert actions == [
        "version 1 promoted; champion 1",
        "version 2 registered; champion 1",
        "version 2 promoted by hand; champion 2",
        "version 2 rolled back; champion 1",
    ]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["promote", "nobody"], "no run 'nobody'"),
        (["promote", "nobody", "--by-hand", " "], "--by-hand needs a reason"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(words, complaint, tmp_path, capsys):
    assert main([*words, "--root", str(tmp_path)]) == REFUSED
    assert complaint in capsys.readouterr().err


def test_a_run_without_an_evaluation_is_said(tmp_path, capsys):
    open_run(resolve("portraits", {"root": str(tmp_path)}, name="raw"))
    assert main(["promote", "raw", "--root", str(tmp_path), "--dry-run"]) == REFUSED
    assert "no evaluate record" in capsys.readouterr().err
