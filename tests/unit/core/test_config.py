from pathlib import Path

import pytest
from pydantic import Field

from components.core import StrictConfig, deep_merge, dump_yaml, fingerprint, load_yaml


class Inner(StrictConfig):
    steps: int = Field(default=10, ge=1)


class Outer(StrictConfig):
    name: str = "a"
    inner: Inner = Inner()


def test_unknown_key_is_refused_with_its_name_and_source():
    with pytest.raises(ValueError, match=r"profile\.yaml.*\n  inner\.stepz: Extra inputs"):
        Outer.parse({"inner": {"stepz": 3}}, source="profile.yaml")


def test_value_out_of_range_names_key_bound_and_value():
    with pytest.raises(ValueError, match=r"inner\.steps: .*greater than or equal to 1; found 0"):
        Outer.parse({"inner": {"steps": 0}}, source="flow parameters")


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Outer().name = "b"


def test_deep_merge_replaces_leaves_and_keeps_the_rest():
    base = {"a": {"x": 1, "y": 2}, "b": [1, 2]}
    assert deep_merge(base, {"a": {"y": 3}, "b": [4]}) == {"a": {"x": 1, "y": 3}, "b": [4]}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1, 2]}


def test_yaml_round_trip(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(Outer(name="é")), encoding="utf-8")
    assert Outer.parse(load_yaml(file), source="file") == Outer(name="é")


@pytest.mark.parametrize(
    ("text", "message"), [("- 1\n", "must hold a mapping"), ("a: [1\n", "not valid YAML")]
)
def test_bad_yaml_says_what_is_wrong(tmp_path: Path, text: str, message: str):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_yaml(file)


def test_missing_yaml_names_the_file(tmp_path: Path):
    with pytest.raises(ValueError, match="no config file"):
        load_yaml(tmp_path / "none.yaml")


def test_fingerprint_ignores_key_order_and_sees_every_value():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint(Outer(), "x") != fingerprint(Outer(), "y")
