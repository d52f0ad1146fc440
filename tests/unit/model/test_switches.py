"""The table of what the paper leaves open (components/model/README.md) says what the code does."""

import json
import re
from pathlib import Path

import pytest

import components.model
from components.model import ModelConfig
from flows.config import PipelineConfig

README = Path(components.model.__file__).parent / "README.md"
ROW = re.compile(
    r"^\| (?P<silence>[^|]+) \| `(?P<switch>[\w.]+)` \| `(?P<default>[^|]+)` \| (?P<why>[^|]+) \|$", re.M
)


def rows() -> list[dict[str, str]]:
    return [found.groupdict() for found in ROW.finditer(README.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["switch"])
def test_a_switch_of_the_table_exists_with_that_default(row):
    value = PipelineConfig().model_dump(mode="json")
    for key in row["switch"].split("."):
        assert key in value, f"{row['switch']} is no setting"
        value = value[key]
    assert value == json.loads(row["default"])


def test_every_switch_of_the_model_is_in_the_table():
    listed = {row["switch"] for row in rows()}
    assert {f"model.{name}" for name in ModelConfig.model_fields} <= listed
    asked = {"train.fusion.draw", "train.fusion.r1", "train.condition_dropout", "train.face_loss.x0_steps"}
    assert asked <= listed


def test_every_equation_of_the_table_is_a_function_that_cites_it():
    from importlib import import_module

    text = README.read_text(encoding="utf-8")
    cited = re.findall(r"`((?:model|training)\.\w+)\.(eq(\d)_\w+)`", text)
    assert sorted(number for *_, number in cited) == list("2345678")
    for module, name, number in cited:
        doc = getattr(import_module(f"components.{module}"), name).__doc__
        assert re.search(rf"PhotoVerse Eq\. \(?{number}\)?", doc), name
