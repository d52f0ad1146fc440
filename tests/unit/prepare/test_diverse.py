"""The balanced held-out set: what is asked, who may be in it, what is said when a cell is short."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.face import FaceConfig
from components.prepare import DiverseRequest, PrepareConfig, SourceConfig, pick_diverse_set
from components.prepare.diverse import cells_of
from components.prepare.sources import Library, PhotoRecord

GROUPS, GENDERS = ("Black", "Brown", "White", "Yellow"), ("female", "male")
CONFIG = PrepareConfig(heldout_share=0.5, validation_share=0.0)


def test_the_papers_count_is_spread_over_eight_cells() -> None:
    asked = DiverseRequest().asked()
    assert sum(asked.values()) == 326
    assert sorted(asked.values()) == [40] * 2 + [41] * 6
    assert DiverseRequest(count=3, groups=("a", "b"), genders=("x",)).asked() == {
        ("a", "x"): 2,
        ("b", "x"): 1,
    }


def record(file: str, split: str = "heldout", person: str = "", **about: str) -> PhotoRecord:
    return PhotoRecord(file, person or file, split, about)


def test_people_in_training_are_no_candidates() -> None:
    black = {"group": "Black", "gender": "female"}
    records = [
        record("a", **black),
        record("b", "train", **black),
        record("c", "validation", **black),
        record("d", person="known", **black),
        record("e", group="Green", gender="female"),
        record("f"),
    ]
    left_out: Counter[str] = Counter()
    cells = cells_of(records, DiverseRequest(), {"known"}, left_out)
    assert {cell: [r.file for r in found] for cell, found in cells.items()} == {("Black", "female"): ["a"]}
    assert left_out == {"person in training": 3, "of no cell": 2}
    everybody = cells_of(records, DiverseRequest(any_split=True), {"known"}, Counter())
    assert {r.file for r in everybody["Black", "female"]} == {"a", "b", "c"}


def test_the_order_of_candidates_follows_from_the_seed() -> None:
    records = [record(f"{i}", group="Black", gender="male") for i in range(20)]
    orders = [
        [r.file for r in cells_of(rows, DiverseRequest(seed=seed), set(), Counter())["Black", "male"]]
        for rows, seed in ((records, 0), (records[::-1], 0), (records, 1))
    ]
    assert orders[0] == orders[1] != orders[2]


def test_a_source_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 1 photos has a group of Black, Brown"):
        cells_of([record("a")], DiverseRequest(), set(), Counter())


class Everybody:
    """An identity net to which every photo is of somebody else, told by the first pixel."""

    input_size = 112

    def __init__(self, path: str) -> None:
        pass

    def embed(self, aligned: np.ndarray) -> np.ndarray:
        rows = [np.random.default_rng(int(a.astype(np.int64).sum())).normal(size=512) for a in aligned]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


@pytest.fixture
def labelled(tmp_path: Path, head, as_bytes) -> Path:
    """Six photos of a head in each of the eight cells, but only one of Yellow men."""
    source = tmp_path / "source"
    source.mkdir()
    rows = []
    for i in range(48):
        group, gender = GROUPS[i % 4], GENDERS[i // 4 % 2]
        if (group, gender) == ("Yellow", "male") and i > 8:
            continue
        shifted = np.roll(head, i % 9, axis=1).copy()
        shifted[60:64, 60:64] = (i, 2 * i, 255 - i)
        (source / f"{i:02d}.png").write_bytes(as_bytes(shifted))
        rows.append(f"{i:02d}.png,p{i},{group},{gender},{'heldout' if i % 2 or i == 7 else 'train'}")
    table = "file,identity,group,gender,split\n" + "\n".join(rows) + "\n"
    (source / "metadata.csv").write_text(table)
    return source


@pytest.fixture
def _distinct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.prepare.embed.IdentityEncoder", Everybody)


def pick(source: Path, model, out: Path, training: Path | None = None, **request):
    return pick_diverse_set(
        DiverseRequest(**request), SourceConfig(path=str(source)), CONFIG, FaceConfig(),
        base=model.base, out=out, training=training,
    )  # fmt: skip


@pytest.mark.usefixtures("_distinct")
def test_a_short_cell_is_said_and_not_filled_from_another(labelled: Path, model, tmp_path: Path) -> None:
    found = pick(labelled, model, tmp_path / "set", count=16, any_split=True)
    counts = {(cell.group, cell.gender): cell.found for cell in found.cells}
    assert counts.pop(("Yellow", "male")) == 1
    assert set(counts.values()) == {2}
    assert (found.asked, found.found) == (16, 15)
    stored = json.loads((tmp_path / "set" / "diverse_set.json").read_text())
    assert (stored["asked"], stored["found"], len(stored["cells"])) == (16, 15, 8)

    rows = list(csv.DictReader((tmp_path / "set" / "metadata.csv").open()))
    assert len({row["identity"] for row in rows}) == 15
    for row in rows:
        original = labelled / row["original"].removeprefix("folder/")
        assert (tmp_path / "set" / row["file"]).read_bytes() == original.read_bytes()
    records = Library(PrepareConfig(), tmp_path / "set").records()  # a folder that prepare reads
    assert {r.split for r in records} == {"heldout"}
    assert Counter(r.about["group"] for r in records) == {"Black": 4, "Brown": 4, "White": 4, "Yellow": 3}

    with pytest.raises(ValueError, match="is not empty: name a new folder"):
        pick(labelled, model, tmp_path / "set")
    assert (
        pick(labelled, model, tmp_path / "again", count=16, any_split=True).fingerprint == found.fingerprint
    )


@pytest.mark.usefixtures("_distinct")
def test_people_whom_the_split_rule_trains_on_are_not_taken(labelled: Path, model, tmp_path: Path) -> None:
    found = pick(labelled, model, tmp_path / "set", count=80)
    rows = list(csv.DictReader((tmp_path / "set" / "metadata.csv").open()))
    assert {int(row["identity"].removeprefix("folder/p")) % 2 for row in rows} <= {1}
    assert found.left_out["person in training"] > 15


def test_a_face_or_photo_of_training_is_not_taken(
    prepare_plainly: Callable, labelled: Path, model, tmp_path: Path, as_bytes, head
) -> None:
    """With the real network: all photos show one head, so whoever trains on it leaves nobody to take."""
    train = tmp_path / "photos"
    train.mkdir()
    (train / "x.png").write_bytes(as_bytes(head))
    prepare_plainly(train, PrepareConfig(validation_share=0.0, heldout_share=0.0))
    found = pick(labelled, model, tmp_path / "set", tmp_path / "out", count=8, any_split=True)
    assert found.found == 0
    assert found.left_out == {"face in training": 43}
    alone = pick(labelled, model, tmp_path / "alone", count=8, any_split=True)
    assert alone.found == 1
    assert set(alone.left_out) == {"face taken already"}


def test_the_command(labelled: Path, model, tmp_path: Path, capsys) -> None:
    from flows.cli import main

    words = ["--photos", str(labelled), "--out", str(tmp_path / "set"), "--count", "8"]
    onnx = Path(model.base) / "face_pack" / "identity.onnx"
    assert main(["diverse-set", *words, "--set", f"face.identity_onnx={onnx}"]) == 0
    said = capsys.readouterr().out
    assert "Yellow       male         asked    1  found    0" in said
    assert "1 of 8 photos: " in said
    assert main(["diverse-set", *words]) == 2
    assert "is not empty" in capsys.readouterr().err
