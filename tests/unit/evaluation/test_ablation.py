"""The ablation's table from planted reports: pairing by person, verdicts, pages."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from components.core import Checkpoint, EvaluationReport, IdentityFigures
from components.evaluation import VARIANTS, AblationConfig, write_ablation
from components.evaluation.ablation import Line, ablation_lines
from components.evaluation.ablation_page import HEAD, markdown
from components.evaluation.metrics import bootstrap_interval

PEOPLE = [f"p{i:02d}" for i in range(30)]
SPREAD = np.random.default_rng(0).normal(0, 0.15, len(PEOPLE))  # people differ far more than variants


def planted(shift: float, noise: float = 0.01, seed: int = 1, count: int = 30, **changed) -> dict:
    """A report whose people are as similar as they are by nature, plus the variant's shift."""
    people = PEOPLE[:count]
    values = 0.5 + shift + SPREAD[:count] + np.random.default_rng(seed).normal(0, noise, count)
    low, high = bootstrap_interval(values, seed=0, samples=300)

    def figure(mean):
        return {"mean": float(mean), "interval": [low, high], "people": count}

    row = {"generated": figure(values.mean()), "retrieval_top1": figure(0.5), "found": figure(0.9)}
    by_person = dict(zip(people, map(float, values), strict=True))
    files = {"file": "x.png", "reference_file": "x.png"}
    return {
        "seed": 0,
        "people": count,
        "prompt": "a photo of S*",
        "pictures_per_reference": 1,
        "judge_marks": {"identity": "00"},
        "by_person": {"identity": by_person, "second": by_person},
        "judges": {"identity": {"rows": {"all": row, "group: north": row}}, "second": {"rows": {"all": row}}},
        "obedience": {"obeyed": {"mean": 0.7, "interval": [0.6, 0.8], "people": 6}},
        "pictures": [{"person": name, "similarity": by_person[name]} | files for name in people],
    } | changed


def test_variants_are_told_apart_by_person_although_people_differ_more():
    reports = {
        "full": planted(0.0),
        "no-visual-branch": planted(-0.4, seed=2),
        "no-face-loss": planted(-0.03, seed=3),
        "no-lora": planted(0.03, seed=4),
        "batch-fusion": planted(0.0, seed=5),
    }
    lines = ablation_lines(reports, samples=500)
    by_name = {line.variant: line for line in lines}
    assert [line.variant for line in lines] == [name for name in VARIANTS if name in by_name]
    far, near = by_name["no-visual-branch"], by_name["no-face-loss"]
    assert (far.verdict, far.apart) == ("worse", True)
    assert far.difference.mean == pytest.approx(0.4, abs=0.02)
    assert "the paper's order holds" in far.words
    assert (near.verdict, near.apart) == ("worse", False)  # intervals overlap, the paired one tells
    assert near.sureness == 1
    assert by_name["no-lora"].verdict == "better"
    assert "better than the full method" in by_name["no-lora"].words
    assert by_name["batch-fusion"].verdict == "undecided"
    assert by_name["full"].difference is None


def test_the_papers_figures_stand_beside_ours():
    lines = ablation_lines({name: planted(0.0) for name in VARIANTS}, samples=100)
    paper = {line.variant: (line.paper, line.paper_difference) for line in lines}
    assert paper["full"] == (0.696, None)
    assert paper["no-visual-branch"] == (0.556, 0.14)
    assert paper["no-visual-regularizer"] == (0.569, 0.127)
    assert paper["no-face-loss"] == (0.643, 0.053)
    assert paper["no-text-regularizer"] == (0.663, 0.033)
    assert paper["no-text-branch"] == paper["batch-fusion"] == paper["no-lora"] == (None, None)


def test_the_same_reports_give_the_same_lines():
    reports = {"full": planted(0.0), "no-lora": planted(-0.01, seed=2)}
    assert ablation_lines(reports, samples=200) == ablation_lines(reports, samples=200)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed_of_report": 1}, "another seed"),
        ({"judge_marks": {"identity": "11"}}, "another judge_marks"),
        ({"pictures_per_reference": 2}, "another pictures_per_reference"),
        ({"count": 29}, "other people"),
    ],
)
def test_what_was_not_measured_alike_is_not_compared(changed, words):
    other = planted(0.0, count=changed.pop("count", 30))
    other |= {key.removesuffix("_of_report"): value for key, value in changed.items()}
    with pytest.raises(ValueError, match=words):
        ablation_lines({"full": planted(0.0), "no-lora": other})


def test_the_full_method_must_be_there():
    with pytest.raises(ValueError, match="'full'"):
        ablation_lines({"no-lora": planted(0.0)})
    with pytest.raises(ValueError, match="must hold 'full'"):
        AblationConfig(variants=("no-lora",))


@pytest.fixture
def finished(tmp_path):
    """Records of three variants, their reports and one picture on disk."""

    def make(variant, shift):
        folder = tmp_path / variant
        folder.mkdir()
        (folder / "report.json").write_text(json.dumps(planted(shift, seed=len(variant))))
        Image.new("RGB", (64, 64), (200, 120, 90)).save(folder / "x.png")
        checkpoint = Checkpoint(
            run_name=variant, folder="f", adapter="a", step=1, seconds=60, reference_gain=0.15,
            reference_gain_interval=(0.1, 0.2),
        )  # fmt: skip
        figures = IdentityFigures(
            generated=0.5, generated_interval=(0.4, 0.6), floor=0, base_alone=0, ceiling=1, retrieval_top1=0.5
        )
        file = str(folder / "report.json")
        report = EvaluationReport(
            report_json=file, report_html="r", people=30, count_out=30, identity=figures
        )
        return checkpoint, report

    shifts = {"full": 0, "no-visual-branch": -0.4, "no-lora": 0}
    return {name: make(name, shift) for name, shift in shifts.items()}


def test_the_table_is_written_three_ways_and_names_what_failed(finished, tmp_path):
    folder, config = tmp_path / "table", AblationConfig(bootstrap_samples=200)
    record = write_ablation(config, finished, folder, missing=["no-face-loss"], facts={"steps": 7})
    assert (record.count_in, record.count_out, record.missing) == (4, 3, ("no-face-loss",))
    assert "holds" in record.verdicts["no visual branch"]
    contents = json.loads((folder / "ablation.json").read_text())
    assert contents["schema_version"] == 1
    assert [line["variant"] for line in contents["lines"]] == ["full", "no-visual-branch", "no-lora"]
    assert contents["lines"][0]["reference_gain"] == 0.15
    table = (folder / "ablation.md").read_text()
    assert table.count("\n| ") == 4
    assert "no-face-loss" in table
    lines = [Line.model_validate(line) for line in contents["lines"]]
    bars = [line.model_copy(update={"title": "no mean|V_S| regulariser"}) for line in lines]
    rows = markdown(bars, {}, []).splitlines()[: 2 + len(bars)]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(HEAD) + 1}
    page = (folder / "ablation.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert 'name="viewport"' in page
    assert page.count("data:image/png;base64,") == 1 + 4 * 4  # plot; 4 people, reference and 3 variants
    first = (folder / "ablation.json").read_text()
    write_ablation(config, finished, folder, missing=["no-face-loss"], facts={"steps": 7})
    assert (folder / "ablation.json").read_text() == first
