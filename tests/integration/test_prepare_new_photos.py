"""New photos come into a folder that a run has prepared: through the stage, they cost only themselves."""

from pathlib import Path

import cv2
import pytest

from components.portraits.world import portrait
from components.shards import open_manifest, verify_shards
from flows.config import resolve
from flows.stages import execute
from tests.factories import tiny_base


def draw(folder: Path, people: range) -> None:
    folder.mkdir(exist_ok=True)
    for person in people:
        cv2.imwrite(str(folder / f"{person:03d}.png"), portrait(3_000 + person, 0).image_uint8[..., ::-1])


@pytest.mark.slow
def test_new_photos_cost_only_themselves(tmp_path):
    draw(tmp_path / "photos", range(12))
    overrides = {
        "root": str(tmp_path / "runs"),
        "photos": str(tmp_path / "photos"),
        "model": {"base": str(tiny_base(tmp_path / "base")), "patch_grid": 1},
        "prepare": {"samples_per_shard": 4, "validation_share": 0, "heldout_share": 0},
        "runtime": {"num_cpus": 2},
    }
    config = resolve("portraits", overrides, name="one")
    out = tmp_path / "runs" / "one" / "records" / "prepare.json"
    first = execute("prepare", config, out)
    times = {path.name: path.stat().st_mtime_ns for path in Path(first.folder).glob("*.tar")}
    assert first.count_in == 12
    assert len(times) >= 3

    assert execute("prepare", config, out) == first  # nothing new: nothing is done

    draw(tmp_path / "photos", range(12, 15))
    second = execute("prepare", config, out)
    assert (second.count_in, second.folder) == (15, first.folder)
    assert second.fingerprint != first.fingerprint  # training must see that its photos are others
    now = {path.name: path.stat().st_mtime_ns for path in Path(second.folder).glob("*.tar")}
    assert times.items() < now.items()
    assert verify_shards(open_manifest(Path(second.folder))) == []
