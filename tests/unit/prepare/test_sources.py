import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from components.prepare import PrepareConfig
from components.prepare.sources import PhotoRecord, read_folder, split_of

CONFIG = PrepareConfig()


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def table(folder: Path, text: str) -> Path:
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_missing_or_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photo folder at .*nowhere"):
        read_folder(tmp_path / "nowhere", CONFIG)
    with pytest.raises(ValueError, match="holds no photos"):
        read_folder(tmp_path, CONFIG)
    put(tmp_path, ".hidden.png", ".cache/a.png", "labels.csv")
    with pytest.raises(ValueError, match="holds no photos"):
        read_folder(tmp_path, CONFIG)


def test_every_file_counts_as_a_photo(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "sub dir/ü b.PNG", "notes.txt", ".hidden")
    files = {record.file for record in read_folder(tmp_path, CONFIG)}
    assert files == {"a.jpg", "sub dir/ü b.PNG", "notes.txt"}


def test_a_table_names_the_photos_and_what_is_known(tmp_path: Path) -> None:
    table(
        tmp_path,
        "file,identity,group,gender,age,split,licence,consent,caption,prompt,mood\n"
        'a.png,ann,Brown,female,30,heldout,CC0-1.0,signed,"a photo, smiling","S*, smiling",calm\n'
        "b.png,bob,,,,train,,,,,\n",
    )
    config = PrepareConfig(source="party", licence="CC-BY-4.0")
    bob, ann = read_folder(tmp_path, config)
    assert ann == PhotoRecord(
        "a.png",
        "ann",
        "heldout",
        {
            "source": "party",
            "licence": "CC0-1.0",
            "consent": "signed",
            "group": "Brown",
            "gender": "female",
            "age": "30",
            "caption": "a photo, smiling",
            "prompt": "S*, smiling",
            "extra": {"mood": "calm"},
        },
    )
    assert bob.about == {"source": "party", "licence": "CC-BY-4.0", "consent": "not stated"}


def test_a_byte_order_mark_and_spaces_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes("\ufefffile , identity\n a.png , ann \n".encode())
    assert read_folder(tmp_path, CONFIG)[0].person == "ann"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,identity\na.png,ann\n", r"lacks the column file; it has: name, identity\. Needed: file"),
        ("", "lacks the column file; it has: none"),
        ("file\na.png\nb.png\na.png\n", r"line 4: 'a\.png' is named twice"),
        ("file,identity\n,ann\n", "line 2: the column file is empty"),
        ("file,split\na.png,test\n", "split 'test'; allowed: train, validation, heldout"),
        ("file,prompt\na.png,a woman\n", r"a\.png has the prompt 'a woman'; it must hold S\* once"),
        ("file,identity,split\na.png,ann,train\nb.png,ann,heldout\n", "'ann' is in the splits"),
        ("file,identity\n", "holds no photos"),
    ],
)
def test_faulty_tables_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_folder(table(tmp_path, text), CONFIG)


def test_a_table_in_another_encoding_is_explained(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes("file\nmüller.png\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not a UTF-8 CSV"):
        read_folder(tmp_path, CONFIG)


def test_records_are_sorted_by_split_and_file(tmp_path: Path) -> None:
    table(tmp_path, "file,split\nd,train\nc,heldout\nb,validation\na,train\n")
    records = read_folder(tmp_path, CONFIG)
    assert [(r.split, r.file) for r in records] == [
        ("train", "a"),
        ("train", "d"),
        ("validation", "b"),
        ("heldout", "c"),
    ]


def test_people_without_a_split_get_one_that_never_changes() -> None:
    config = PrepareConfig(validation_share=0.1, heldout_share=0.2)
    people = [f"person {i}" for i in range(4000)]
    splits = {person: split_of(person, config) for person in people}
    count = Counter(splits.values())
    assert abs(count["heldout"] / 4000 - 0.2) < 0.03
    assert abs(count["validation"] / 4000 - 0.1) < 0.03
    assert splits == {person: split_of(person, config) for person in reversed(people)}
    assert splits != {p: split_of(p, config.model_copy(update={"split_salt": "other"})) for p in people}


def test_photos_of_a_person_share_a_split(tmp_path: Path) -> None:
    put(tmp_path, *(f"person{i}/{view}.png" for i in range(40) for view in range(3)))
    config = PrepareConfig(identity_from_folder=True, validation_share=0.3, heldout_share=0.3)
    records = read_folder(tmp_path, config)
    assert len({r.person for r in records}) == 40
    assert len({(r.person, r.split) for r in records}) == 40
    assert len({r.person for r in read_folder(tmp_path, CONFIG)}) == 120


def test_what_is_said_is_part_of_the_fingerprint() -> None:
    record = PhotoRecord("a.png", "ann", "train", {"group": "Brown"})
    assert record.fingerprint == PhotoRecord("a.png", "ann", "train", {"group": "Brown"}).fingerprint
    assert record.fingerprint != PhotoRecord("a.png", "ann", "train", {"group": "White"}).fingerprint


@pytest.mark.parametrize(
    "wrong",
    [
        {"identity_expand": 0.5},
        {"several_faces": "some"},
        {"validation_share": 0.6, "heldout_share": 0.5},
        {"batch_size": 0},
        {"unknown": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="profile is not a valid PrepareConfig"):
        PrepareConfig.parse(wrong, source="profile")


def test_workers_that_find_faces_need_no_torch() -> None:
    script = (
        "import sys; import components.prepare.stages, components.prepare.spec;"
        "print(sorted({'torch', 'transformers', 'diffusers', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
