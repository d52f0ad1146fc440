"""The labelled folder of drawn people: complete, split by identity, the same again, never drawn twice."""

import csv
import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from components.core import RuntimeConfig
from components.portraits import PortraitsConfig, draw_people
from components.portraits.dataset import COLUMNS, SPLIT_STARTS
from components.portraits.world import portrait
from tests.factories import drawn_people

SMALL = PortraitsConfig(train_people=2, validation_people=1, heldout_people=1, size=64)
ONE_CPU = RuntimeConfig(num_cpus=1)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("people") / "drawn"
    draw_people(SMALL, ONE_CPU, target)
    return target


def test_every_row_has_its_picture_and_every_picture_its_row(folder):
    rows = rows_of(folder)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * 3 + 1 * 2 + 1 * 2
    assert {row["file"] for row in rows} == {f"images/{p.name}" for p in (folder / "images").iterdir()}
    assert all(row[column] for row in rows for column in COLUMNS)


def test_people_are_split_by_identity(folder):
    splits: dict[str, set[str]] = {}
    for row in rows_of(folder):
        splits.setdefault(row["split"], set()).add(row["identity"])
    assert {split: len(people) for split, people in splits.items()} == {
        "train": 2,
        "validation": 1,
        "heldout": 1,
    }
    assert not set.intersection(*splits.values())


def test_largest_folder_allowed_never_shares_a_person_between_splits():
    config = PortraitsConfig(
        train_people=500_000, validation_people=100_000, heldout_people=100_000, first_identity=100_000
    )
    ends = [
        SPLIT_STARTS["train"] + config.first_identity + config.train_people,
        SPLIT_STARTS["validation"] + config.first_identity + config.validation_people,
        SPLIT_STARTS["heldout"] + config.first_identity + config.heldout_people,
    ]
    assert ends[0] <= SPLIT_STARTS["validation"] + config.first_identity
    assert ends[1] <= SPLIT_STARTS["heldout"] + config.first_identity
    assert ends[2] <= 1_000_000


def test_pictures_are_those_of_the_world(folder):
    row = rows_of(folder)[4]
    person, view = (int(part) for part in Path(row["file"]).stem.split("-"))
    drawn = portrait(person, view, 64)
    found = cv2.imread(str(folder / row["file"]))[..., ::-1]
    assert np.array_equal(found, drawn.image_uint8)
    assert (row["caption"], row["prompt"]) == (drawn.caption, drawn.prompt)


def test_swapped_glasses_are_seen_with_and_without_on_training_people_alone(tmp_path):
    config = SMALL.model_copy(update={"train_people": 30, "heldout_people": 30, "glasses_swap": 0.5})
    draw_people(config, ONE_CPU, tmp_path)
    both: dict[str, int] = {"train": 0, "heldout": 0}
    for split in both:
        worn: dict[str, set[bool]] = {}
        for row in rows_of(tmp_path):
            if row["split"] == split:
                seen = json.loads(row["attributes"])["glasses"]
                assert ("with glasses" in row["prompt"]) == seen
                worn.setdefault(row["identity"], set()).add(seen)
        both[split] = sum(len(states) == 2 for states in worn.values())
    assert both["train"] > 15  # of three views: 3 of 4 people, 22 of 30
    assert both["heldout"] == 0


def test_complete_folder_does_no_work(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    started = time.monotonic()
    record = draw_people(SMALL, ONE_CPU, folder)
    assert time.monotonic() - started < 1
    assert record.count_out == 10
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_interrupted_folder_is_completed_and_keeps_what_it_has(folder, tmp_path):
    draw_people(SMALL, ONE_CPU, tmp_path / "again")
    again = tmp_path / "again"
    kept = next((again / "images").iterdir())
    lost = sorted((again / "images").iterdir())[-1]
    kept_time = kept.stat().st_mtime_ns
    (again / "portraits.json").unlink()
    lost.unlink()
    draw_people(SMALL, ONE_CPU, again)
    assert kept.stat().st_mtime_ns == kept_time
    assert lost.read_bytes() == (folder / "images" / lost.name).read_bytes()
    assert (again / "metadata.csv").read_bytes() == (folder / "metadata.csv").read_bytes()


def test_other_settings_in_the_same_folder_are_refused(folder):
    with pytest.raises(ValueError, match="other settings"):
        draw_people(SMALL.model_copy(update={"train_people": 3}), ONE_CPU, folder)


def test_nobody_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one person"):
        PortraitsConfig.parse({"train_people": 0, "validation_people": 0, "heldout_people": 0}, source="test")


def test_factory_draws_all_splits(tmp_path):
    rows = rows_of(drawn_people(tmp_path / "people", people=4, views=1))
    assert [row["split"] for row in rows] == ["train", "train", "validation", "heldout"]
