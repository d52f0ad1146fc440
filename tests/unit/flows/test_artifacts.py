"""What Prefect's pages are given: figures, links, small pictures."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from components.core import Checkpoint, EvaluationReport, IdentityFigures, Promotion, TrackingConfig
from flows.artifacts import data_uri, figures_of, links, picture_of
from flows.environment import MLFLOW_PAGE

IDENTITY = IdentityFigures(
    generated=0.41239,
    generated_interval=(0.3, 0.5),
    floor=0.1,
    base_alone=0.05,
    ceiling=0.9,
    retrieval_top1=0.25,
)


@pytest.fixture
def report(tmp_path):
    for name in ("report.json", "report.html"):
        (tmp_path / name).write_text("")
    return EvaluationReport(
        report_json=str(tmp_path / "report.json"),
        report_html=str(tmp_path / "report.html"),
        people=4,
        identity=IDENTITY,
    )


def test_figures_are_flat_and_rounded(report):
    figures = figures_of(report)
    assert figures["identity.generated"] == 0.4124
    assert figures["identity.generated_interval"] == "0.3, 0.5"
    assert figures["people"] == 4
    assert "schema_version" not in figures


def test_links_lead_to_report_run_and_model(report, tmp_path, monkeypatch):
    trained = Checkpoint(
        run_name="r", folder="f", adapter="a", step=1, reference_gain=0.1, reference_gain_interval=(0, 1),
        mlflow_run_id="abc",
    )  # fmt: skip
    promoted = Promotion(decision="promoted", reasons=("passed",), model_name="p", model_uri="models:/p/1")
    records = {"train": trained, "evaluate": report, "promote": promoted}
    monkeypatch.delenv(MLFLOW_PAGE, raising=False)
    text = links(tmp_path / "config.yaml", TrackingConfig(uri="http://127.0.0.1:5000/"), records)
    assert f"[report]({(tmp_path / 'report.html').as_uri()})" in text
    assert "[runs/abc](http://127.0.0.1:5000/#/runs/abc)" in text
    assert "**promoted**" in text
    assert "models:/p/1" in text
    local = TrackingConfig(uri="sqlite:///x.db")
    assert "`runs/abc` in `sqlite:///x.db`" in links(tmp_path / "config.yaml", local, records)
    monkeypatch.setenv(MLFLOW_PAGE, "http://127.0.0.1:5001")
    assert "(http://127.0.0.1:5001/#/runs/abc)" in links(tmp_path / "config.yaml", local, records)


def test_pictures_are_made_small_enough_to_travel(tmp_path, report):
    assert picture_of(report) is None
    Image.new("RGBA", (3000, 1000), (200, 10, 10, 255)).save(tmp_path / "grid.png")
    assert picture_of(report) == Path(tmp_path / "grid.png")
    uri = data_uri(tmp_path / "grid.png")
    kind, data = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert small.size == (1200, 400)
