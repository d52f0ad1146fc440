import hashlib
from pathlib import Path

import pytest

from components.core import atomic_path, inside, remove_halves, sha256_file, sha256_folder, write_text_atomic


def fail_halfway(file: Path) -> None:
    with atomic_path(file) as temporary:
        temporary.write_text("half")
        (file.parent / "none").read_text()


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path):
    file = tmp_path / "a.json"
    write_text_atomic(file, "old")
    with pytest.raises(FileNotFoundError):
        fail_halfway(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_text() == "old"


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path):
    names = ["a.tar", "b.tmp", ".hidden"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    writer = atomic_path(tmp_path / "c.tar")
    writer.__enter__().write_bytes(b"half")
    assert len(list(tmp_path.iterdir())) == 4
    remove_halves(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_sha256_of_a_file(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_sha256_of_a_folder_sees_names_and_contents(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    first = sha256_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = sha256_folder(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, sha256_folder(tmp_path)}) == 3


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="leads out"):
        inside(tmp_path, name)


def test_a_link_that_leads_out_is_refused(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out"):
        inside(tmp_path / "in", "link/secret")


def test_names_inside_are_given_back(tmp_path: Path):
    assert inside(tmp_path, "a/b.png") == tmp_path.resolve() / "a" / "b.png"
