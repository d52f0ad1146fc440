"""Where requests and photos come from: JSONL, CSV, Parquet, an inbox, a bucket; and what may be read."""

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.inference import BatchConfig, Dials
from components.inference.photo_places import find_photo, photo_bytes
from components.inference.request_files import nested, read_place
from components.inference.requests import read_requests

JSONL = (
    '{"id": "a", "photo": "a.png", "prompt": "S*", "seed": 7, "num_images": 2, "dials": {"sigma": 0.5},'
    ' "consent": {"person": "anna", "purpose": "cards", "given": "2026-01-01"}}\n'
)
CSV = (
    "id,photo,prompt,seed,num_images,dials.sigma,dials.m,consent.person,consent.purpose,consent.given\n"
    "a,a.png,S*,7,2,0.5,,anna,cards,2026-01-01\n"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a photo")
    return tmp_path


def parquet(path):
    row = {
        "id": "a", "photo": "a.png", "prompt": "S*", "seed": 7, "num_images": 2,
        "dials": {"sigma": 0.5, "gamma": None}, "consent.person": "anna", "consent.purpose": "cards",
        "consent.given": "2026-01-01", "negative_prompt": None,
    }  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), path)
    return path


def test_three_kinds_of_files_say_the_same(folder):
    (folder / "a.jsonl").write_text(JSONL)
    (folder / "a.csv").write_text("\ufeff" + CSV)
    parquet(folder / "a.parquet")
    read = [read_requests(folder / f"a.{kind}", BatchConfig(), {}) for kind in ("jsonl", "csv", "parquet")]
    assert [line.error for (line,) in read] == [None] * 3
    assert {line.hash for (line,) in read} == {read[0][0].hash}
    assert read[0][0].dials == Dials(sigma=0.5)
    assert read[0][0].person == "anna"


def test_an_inbox_gives_every_file_of_a_known_kind_and_ids_may_meet(folder):
    (folder / "b.jsonl").write_text(JSONL + JSONL)
    (folder / "a.csv").write_text(CSV)
    parquet(folder / "c.parquet")
    for name in (".half.jsonl", "_tmp.csv", "notes.txt"):
        (folder / name).write_text("junk")
    lines = read_requests(folder, BatchConfig(), {})
    assert [(line.source, line.id) for line in lines] == [
        *(("a.csv", "a"), ("b.jsonl", "a"), ("b.jsonl", "line-2"), ("c.parquet", "a")),
    ]
    assert "is that of line 1" in lines[2].error


def test_a_bucket_is_an_inbox_and_new_files_are_found(monkeypatch):
    bucket = fsspec.filesystem("memory")
    bucket.pipe("/inbox/a.png", b"a photo")
    bucket.pipe("/inbox/1.jsonl", JSONL.encode())
    (line,) = read_requests("memory://inbox", BatchConfig(), {})
    assert line.error is None
    assert line.photo_places == ("memory:///inbox/a.png",)
    bucket.pipe("/inbox/2.csv", CSV.encode())
    assert [line.source for line in read_requests("memory://inbox", BatchConfig(), {})] == [
        "1.jsonl",
        "2.csv",
    ]
    assert photo_bytes(line.photo_places[0], 1) == b"a photo"


@pytest.mark.parametrize(
    "photo",
    ["../a.png", "/etc/passwd", "s3://other/a.png", "s3://mine/photos/../a.png", "s3://mine/photosx/a.png", "file:///etc/passwd"],
)  # fmt: skip
def test_a_request_reads_nothing_but_its_own_folder_and_what_is_allowed(folder, photo):
    with pytest.raises(ValueError, match="leads out|URLs that may be read|no photo"):
        find_photo(photo, str(folder), ["s3://mine/photos"])
    if "://" not in photo:
        with pytest.raises(ValueError, match="leads out"):
            find_photo(photo, "s3://bucket/inbox", [])


def test_allowed_urls_and_names_below_a_bucket_are_found(folder):
    assert find_photo("s3://mine/photos/x.png", str(folder), ["s3://mine/photos"]) == "s3://mine/photos/x.png"
    assert find_photo("sub/x.png", "s3://bucket/inbox/", []) == "s3://bucket/inbox/sub/x.png"


def test_a_photo_that_is_missing_or_too_large_is_a_fault_of_its_request(folder):
    with pytest.raises(ValueError, match="no photo at"):
        photo_bytes(str(folder / "b.png"), 1)
    (folder / "large.png").write_bytes(bytes(2 * 2**20))
    with pytest.raises(ValueError, match=r"has 2 MB; allowed: 1"):
        photo_bytes(str(folder / "large.png"), 1)


def test_rows_of_tables_are_nested_by_their_dots():
    assert nested({"a": 1, "b.c": 2, "b.d": "", "e": None, "b.f.g": 0}) == {
        "a": 1,
        "b": {"c": 2, "f": {"g": 0}},
    }


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.csv", b'id,photo\n"a', "no CSV"),
        ("x.parquet", b"junk", "no Parquet"),
        ("x.jsonl", b"\xff\xfe", "not UTF-8"),
        ("x.csv", b"", "holds no request"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, complaint):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_place(folder / name)


def test_an_inbox_may_be_empty_tonight(folder):
    assert read_requests(folder, BatchConfig(), {}) == []


def test_faulty_rows_are_error_rows(folder):
    (folder / "x.csv").write_text("id,photo,prompt\na,a.png,S*\nb,a.png\nc,a.png,S*,more\n")
    errors = [line.error for line in read_requests(folder / "x.csv", BatchConfig(), {})]
    assert "consent: a photo needs it" in errors[0]
    assert errors[1:] == ["has more or fewer cells than the header"] * 2
    (folder / "x.jsonl").write_text("[" * 100_000 + "\n")
    assert read_requests(folder / "x.jsonl", BatchConfig(), {})[0].error


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"card": "f" * 32}, "photo .with consent. or card"),
        ({"consent": {"person": "unnamed", "purpose": "x"}}, "needs the person's ID"),
        ({"consent": {"person": "anna", "purpose": "x", "given": "2999-01-01"}}, "in the future"),
        ({"consent": "words"}, "consent"),
        ({"photo": None, "consent": None, "card": "f" * 32}, "no folder of cards"),
    ],
)
def test_consent_is_asked_for_at_the_door(folder, changed, complaint):
    import json

    (folder / "x.jsonl").write_text(json.dumps(json.loads(JSONL) | changed))
    (line,) = read_requests(folder / "x.jsonl", BatchConfig(), {})
    assert line.error is not None
    assert __import__("re").search(complaint, line.error)
