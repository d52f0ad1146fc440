import json
from pathlib import Path

import pytest

from components.core import PhotoFolder, Promotion


def make_folder() -> PhotoFolder:
    return PhotoFolder(folder="photos", people={"train": 2}, count_out=4, seconds=1.5)


def test_a_record_survives_save_and_load(tmp_path: Path):
    record = make_folder()
    assert PhotoFolder.load(record.save(tmp_path / "portraits.json")) == record


def test_the_record_of_another_stage_is_refused(tmp_path: Path):
    path = make_folder().save(tmp_path / "portraits.json")
    with pytest.raises(ValueError, match="record of stage 'portraits', expected 'promote'"):
        Promotion.load(path)


def test_a_missing_record_says_what_to_run(tmp_path: Path):
    with pytest.raises(ValueError, match="photoverse stage portraits"):
        PhotoFolder.load(tmp_path / "none.json")


def test_a_record_of_another_schema_is_refused(tmp_path: Path):
    path = make_folder().save(tmp_path / "portraits.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2}))
    with pytest.raises(ValueError, match="schema_version"):
        PhotoFolder.load(path)
