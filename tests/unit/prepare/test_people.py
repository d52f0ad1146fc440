"""Who is who without labels: groups of embeddings, their names over time, and the splits that follow."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.prepare import PrepareConfig
from components.prepare import people as people_module
from components.prepare.people import link, name_groups
from components.prepare.sources import Library
from components.shards import load_split


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_groups_are_the_connected_parts_of_the_graph_of_similar_faces() -> None:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(1)
    people = rng.normal(size=(30, 16))
    faces = unit(people[rng.integers(0, 30, 400)] + rng.normal(scale=0.35, size=(400, 16)))
    for block in (7, 64, 1000):
        groups = link(faces, 0.85, block)
        count, expected = connected_components(csr_matrix(faces @ faces.T >= 0.85))
        assert len(set(groups)) == count > 5
        assert len(set(zip(groups, expected.tolist(), strict=True))) == count


def test_a_person_keeps_its_name_when_photos_come() -> None:
    first = name_groups(["b", "c", "d"], [0, 0, 1], {})
    assert first == {"b": "b", "c": "b", "d": "d"}
    later = name_groups(["a", "b", "c", "d"], [0, 0, 0, 1], first)
    assert later == {"a": "b", "b": "b", "c": "b", "d": "d"}
    merged = name_groups(["a", "b", "c", "d"], [0, 0, 0, 0], later)
    assert set(merged.values()) == {"b"}


@pytest.fixture
def two_people(tmp_path: Path, as_bytes, head) -> Path:
    """Six photos of the astronaut and four of somebody else, none labelled."""
    import insightface

    source = tmp_path / "photos"
    source.mkdir()
    group = Image.open(Path(insightface.__file__).parent / "data/images/t1.jpg").convert("RGB")
    other = np.asarray(group.crop((860, 35, 1055, 230)))
    for i in range(6):
        (source / f"a{i}.png").write_bytes(as_bytes(np.roll(head, i, axis=1)))
    for i in range(4):
        (source / f"b{i}.png").write_bytes(as_bytes(np.roll(other, 2 * i, axis=0)))
    (source / "not a photo.txt").write_text("text")
    return source


class Colours:
    """An identity net for the test: the mean colours of the face's quarters."""

    input_size = 112

    def __init__(self, path: str) -> None:
        pass

    def embed(self, aligned: np.ndarray) -> np.ndarray:
        cells = aligned.reshape(len(aligned), 2, 56, 2, 56, 3).mean((2, 4)).reshape(len(aligned), -1)
        return unit(cells - cells.mean(1, keepdims=True))


@pytest.fixture
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.prepare.embed.IdentityEncoder", Colours)


@pytest.mark.usefixtures("_colours")
def test_unlabelled_photos_of_a_person_are_never_on_two_sides(
    prepare_plainly, two_people: Path, tmp_path: Path, monkeypatch, as_bytes, head
) -> None:
    salt = next(  # with this one both sides get somebody, and alone the photos would be spread
        f"s{i}"
        for i in range(1000)
        if _split("a0.png", f"s{i}") == "train" and _split("b0.png", f"s{i}") == "heldout"
    )
    config = PrepareConfig(
        person_similarity=0.95, heldout_share=0.4, validation_share=0.0, split_salt=salt, max_reject_share=0.9
    )
    alone = Library(config, two_people).records()
    assert len({r.split for r in alone if r.file.startswith("a")}) == 2
    manifest = prepare_plainly(two_people, config)
    held = {s["meta.json"]["file"]: s["meta.json"] for s in load_split(manifest, "heldout", ())}
    trained = {s["meta.json"]["file"]: s["meta.json"] for s in load_split(manifest, "train", ())}
    assert {file[0] for file in held} == {"b"}
    assert {file[0] for file in trained} == {"a"}
    assert {meta["person"] for meta in trained.values()} == {"a0.png"}
    assert (len(held), len(trained)) == (4, 6)

    def never(*args: object) -> None:
        raise AssertionError("a photo was embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(people_module.EmbedStage, "__init__", never)
        assert prepare_plainly(two_people, config) == manifest
    (two_people / "0 new.png").write_bytes(as_bytes(np.roll(head, 9, axis=1)))
    shards = {shard.sha256 for shard in manifest.shards}
    again = prepare_plainly(two_people, config)
    assert shards < {shard.sha256 for shard in again.shards}  # nobody moved, one shard came
    new = [s["meta.json"] for s in load_split(again, "train", ()) if s["meta.json"]["file"] == "0 new.png"]
    assert [meta["person"] for meta in new] == ["a0.png"]


@pytest.mark.usefixtures("_colours")
def test_who_is_held_out_by_the_set_takes_the_likes_along(prepare_plainly, two_people: Path) -> None:
    rows = "".join(f"{p.name},{'heldout' if p.name == 'a3.png' else ''}\n" for p in two_people.glob("*.png"))
    (two_people / "metadata.csv").write_text("file,split\n" + rows)
    config = PrepareConfig(person_similarity=0.95, heldout_share=0.0, validation_share=0.0)
    manifest = prepare_plainly(two_people, config)
    assert manifest.samples == {"train": 4, "validation": 0, "heldout": 6}


def test_labelled_photos_are_left_as_they_are(prepare_plainly, add_photos) -> None:
    source = add_photos(3)
    (source / "metadata.csv").write_text("file,identity\n0000.png,x\n0001.png,y\n0002.png,z\n")
    config = PrepareConfig(person_similarity=0.5, validation_share=0.0, heldout_share=0.0)
    samples = load_split(prepare_plainly(source, config), "train", ())
    assert {sample["meta.json"]["person"] for sample in samples} == {"x", "y", "z"}


def _split(person: str, salt: str) -> str:
    from components.prepare.sources import split_of

    return split_of(person, PrepareConfig(heldout_share=0.4, validation_share=0.0, split_salt=salt))
