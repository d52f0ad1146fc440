"""Readers of the public sets, each on a tiny set in the real layout."""

import pickle
from pathlib import Path

import pytest

from components.prepare import PrepareConfig
from components.prepare.config import SourceConfig
from components.prepare.sources import READERS, Library, OutsideError, PhotoRecord
from tests.unit.prepare import layouts


def number(i: int) -> bytes:
    return b"photo %d" % i


def library(*sources: dict, **settings) -> Library:
    return Library(PrepareConfig(sources=tuple(SourceConfig(**source) for source in sources), **settings))


def by_file(found: Library) -> dict[str, PhotoRecord]:
    return {record.file: record for record in found.records()}


def test_fairface(tmp_path: Path) -> None:
    found = library({"kind": "fairface", "path": str(layouts.fairface(tmp_path, number))})
    records = by_file(found)
    assert len(records) == 5
    groups = {file.removeprefix("fairface/"): record.about["group"] for file, record in records.items()}
    assert groups == {
        "train/1.jpg": "Yellow",
        "train/2.jpg": "Brown",
        "train/3.jpg": "Black",
        "val/1.jpg": "Brown",
        "val/2.jpg": "White",
    }
    third = records["fairface/train/3.jpg"]
    assert third.about["extra"] == {"race": "Black"}
    assert (third.about["gender"], third.about["age"]) == ("female", "more than 70")
    assert (third.about["licence"], third.about["source"]) == ("CC-BY-4.0", "fairface")
    assert {r.split for f, r in records.items() if "/val/" in f} == {"heldout"}
    assert not any(record.labelled for record in records.values())
    assert found.read("fairface/val/2.jpg") == b"photo 4"


def test_fairface_races_go_to_groups_by_the_table_of_the_settings(tmp_path: Path) -> None:
    folder = str(layouts.fairface(tmp_path, number))
    table = SourceConfig().groups | {"East Asian": "Asian", "Indian": "Asian"}
    records = by_file(library({"kind": "fairface", "path": folder, "groups": table, "splits": {}}))
    assert records["fairface/train/1.jpg"].about["group"] == "Asian"
    with pytest.raises(ValueError, match=r"line 2: race 'East Asian' is not in groups \(Black\)"):
        library({"kind": "fairface", "path": folder, "groups": {"Black": "Black"}}).records()


def test_celebahq_with_people_attributes_and_masks(tmp_path: Path, as_bytes) -> None:
    folder = layouts.celebahq(tmp_path, number, as_bytes)
    records = by_file(library({"kind": "celebahq", "path": str(folder), "name": "celeba"}))
    people = {file: (record.person, record.about["gender"]) for file, record in records.items()}
    assert people == {
        "celeba/CelebA-HQ-img/0.jpg": ("celeba/2880", "female"),
        "celeba/CelebA-HQ-img/1.jpg": ("celeba/12", "male"),
        "celeba/CelebA-HQ-img/2001.jpg": ("celeba/2880", "female"),
    }
    masks = {file.rsplit("/", 1)[1]: record.masks for file, record in records.items()}
    assert masks == {
        "0.jpg": (
            "celeba/CelebAMask-HQ-mask-anno/0/00000_hair.png",
            "celeba/CelebAMask-HQ-mask-anno/0/00000_skin.png",
        ),
        "1.jpg": (),
        "2001.jpg": ("celeba/CelebAMask-HQ-mask-anno/1/02001_l_brow.png",),
    }
    assert records["celeba/CelebA-HQ-img/0.jpg"].about["extra"] == {"celeba_file": "119614.jpg"}
    assert "non-commercial" in records["celeba/CelebA-HQ-img/0.jpg"].about["licence"]


def test_celebahq_without_its_optional_files(tmp_path: Path, as_bytes) -> None:
    folder = layouts.celebahq(tmp_path, number, as_bytes)
    for name in ("identity_CelebA.txt", "CelebAMask-HQ-attribute-anno.txt"):
        (folder / name).unlink()
    records = by_file(library({"kind": "celebahq", "path": str(folder)}))
    assert len({record.person for record in records.values()}) == 3
    assert not any("gender" in record.about for record in records.values())


def test_ffhq_with_its_table(tmp_path: Path) -> None:
    found = library({"kind": "ffhq", "path": str(layouts.ffhq(tmp_path, number))})
    records = by_file(found)
    assert sorted(records) == [
        "ffhq/images1024x1024/00000/00000.png",
        "ffhq/images1024x1024/00000/00001.png",
        "ffhq/images1024x1024/01000/01001.png",
    ]
    first, last = (records[name] for name in sorted(records)[::2])
    assert first.about["licence"] == "Public Domain Mark"
    assert last.about["licence"] == "Attribution-NonCommercial License"
    assert last.about["extra"]["author"] == "Jérémy 1001"
    assert last.split == "heldout"
    assert found.read(last.file) == b"photo 2"


def test_ffhq_without_its_table_and_without_nested_folders(tmp_path: Path) -> None:
    plain = by_file(library({"kind": "ffhq", "path": str(layouts.ffhq(tmp_path / "a", number, table=False))}))
    assert len(plain) == 3
    assert {record.about["licence"] for record in plain.values()} == {"CC-BY-NC-SA-4.0"}
    flat = layouts.ffhq(tmp_path / "b", number)
    for path in sorted((flat / "images1024x1024").rglob("*.png")):
        path.rename(flat / "images1024x1024" / path.name)
    records = by_file(library({"kind": "ffhq", "path": str(flat)}))
    assert "ffhq/images1024x1024/01001.png" in records


def test_parquet_with_images_inside(tmp_path: Path) -> None:
    source = {
        "kind": "parquet",
        "path": str(layouts.parquet(tmp_path, number)),
        "columns": {"group": "race", "identity": "who"},
        "licence": "CC0-1.0",
    }
    found = library(source)
    records = by_file(found)
    assert len(records) == 6
    third = records["parquet/data/train-00000-of-00001.parquet#2"]
    assert (third.person, third.about["group"], third.about["gender"]) == ("parquet/1", "Black", "male")
    assert third.about["licence"] == "CC0-1.0"
    # The fifth photo of "train" shows the person of "test": who is held out once is held out always.
    assert {file.rsplit("/", 1)[1] for file, r in records.items() if r.person == "parquet/2"} == {
        "test-00000-of-00001.parquet#0",
        "train-00000-of-00001.parquet#4",
    }
    assert {r.split for r in records.values() if r.person == "parquet/2"} == {"heldout"}
    worker = pickle.loads(pickle.dumps(found))
    for i in (4, 0, 3, 1, 2):
        assert worker.read(f"parquet/data/train-00000-of-00001.parquet#{i}") == b"photo %d" % i
    with pytest.raises(FileNotFoundError, match="has no row 5"):
        worker.read("parquet/data/train-00000-of-00001.parquet#5")
    with pytest.raises(ValueError, match=r"no column 'photo' .*; it has: image, race, gender, who"):
        library(source | {"columns": {"image": "photo"}}).records()


@pytest.mark.parametrize("kind", sorted(set(READERS) - {"folder"}))
def test_a_folder_that_holds_another_set_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=f"is not laid out as kind '{kind}': no"):
        library({"kind": kind, "path": str(tmp_path)}).records()


def test_several_sources_in_one_run(tmp_path: Path, as_bytes) -> None:
    (tmp_path / "party").mkdir()
    (tmp_path / "party" / "1.jpg").write_bytes(b"party")
    found = library(
        {"kind": "fairface", "path": str(layouts.fairface(tmp_path / "f", number))},
        {"kind": "ffhq", "path": str(layouts.ffhq(tmp_path / "g", number))},
        {"path": str(tmp_path / "party"), "name": "party", "licence": "own", "consent": "signed"},
    )
    records = by_file(found)
    assert len(records) == 5 + 3 + 1
    assert records["party/1.jpg"].about == {"source": "party", "licence": "own", "consent": "signed"}
    assert found.read("party/1.jpg") == b"party"
    assert found.read("fairface/train/1.jpg") == b"photo 0"
    with pytest.raises(OutsideError, match="is of no source"):
        found.read("elsewhere/1.jpg")
    with pytest.raises(OutsideError, match="leads out"):
        found.read("party/../f/train/1.jpg")


def test_two_sources_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="the names ffhq come twice"):
        PrepareConfig(sources=({"kind": "ffhq", "path": "a"}, {"kind": "ffhq", "path": "b"}))


def test_a_source_without_a_path_is_the_folder_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    config = PrepareConfig(sources=(SourceConfig(name="drawn"),))
    assert Library(config, tmp_path).read("drawn/a.png") == b"a"
    with pytest.raises(ValueError, match="source 'drawn' has no path, and the run has no photo folder"):
        Library(config)


def test_weights_take_a_share_of_the_people_that_never_changes(tmp_path: Path) -> None:
    rows = "".join(f"{person}/{view}.png,p{person}\n" for person in range(300) for view in range(2))
    (tmp_path / "metadata.csv").write_text("file,identity\n" + rows)

    def people(weight: float) -> set[str]:
        records = library({"path": str(tmp_path), "weight": weight}).records()
        taken = {record.person for record in records}
        assert len(records) == 2 * len(taken)  # a person comes with all photos or none
        return taken

    half, most, everybody = people(0.5), people(0.8), people(1.0)
    assert half < most < everybody
    assert len(everybody) == 300
    assert abs(len(half) - 150) < 30
    assert abs(len(most) - 240) < 30


def test_memory_and_local_urls_give_the_same_records(tmp_path: Path, as_bytes) -> None:
    import fsspec

    layouts.fairface(tmp_path / "fairface", number)
    layouts.celebahq(tmp_path / "celebahq", number, as_bytes)
    layouts.ffhq(tmp_path / "ffhq", number)
    layouts.parquet(tmp_path / "parquet", number)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/sets", recursive=True)
    try:
        for kind in ("fairface", "celebahq", "ffhq", "parquet"):
            local = library({"kind": kind, "path": f"file://{tmp_path}/{kind}"})
            remote = library({"kind": kind, "path": f"memory://sets/{kind}"})
            records = local.records()
            assert remote.records() == records
            for record in records:
                assert remote.read(record.file) == local.read(record.file)
                assert remote.state(record.file)[0] == local.state(record.file)[0] > 0
            with pytest.raises(OutsideError, match="leads out"):
                remote.sources[f"{kind}/"].store.read("../other")
            assert remote.state(f"{kind}/nowhere") == (-1, -1)
            before = remote.digest()
            memory.pipe(f"/sets/{kind}/new.jpg", b"1")
            assert library({"kind": kind, "path": f"memory://sets/{kind}"}).digest() != before
    finally:
        memory.rm("/sets", recursive=True)


def test_a_store_that_fails_now_and_then_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    from components.prepare.sources import store

    memory = fsspec.filesystem("memory")
    memory.pipe("/flaky/a.jpg", b"a")
    monkeypatch.setattr(store.time, "sleep", lambda seconds: None)
    real, calls = type(memory).cat_file, iter(range(100))

    def sometimes(self, path, *args, **kwargs):
        if next(calls) % 3 != 2:
            raise OSError("busy")
        return real(self, path, *args, **kwargs)

    monkeypatch.setattr(type(memory), "cat_file", sometimes)
    opened = store.open_store("memory://flaky")
    assert [opened.read("a.jpg") for _ in range(3)] == [b"a"] * 3
    monkeypatch.setattr(type(memory), "cat_file", lambda *a, **k: (_ for _ in ()).throw(OSError("down")))
    with pytest.raises(OSError, match="down"):
        opened.read("a.jpg")
    memory.rm("/flaky", recursive=True)
