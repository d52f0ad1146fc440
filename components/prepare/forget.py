"""Forgetting a person in a prepared set: samples, journal, embeddings, pages; and that they do not come back.

The tars are written anew by `components.shards`; here is what preparation keeps beside them. `forgotten.json`
lists the photos that went, so that a later run into the folder leaves them out, whoever still has them. No
network runs.
"""

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core import ShardManifest, atomic_path, write_text_atomic
from components.prepare.journal import FOLDER as JOURNAL
from components.prepare.journal import ShardEntry
from components.prepare.outputs import CONTACT_SHEET, REJECTS, counts_of, write_rejects
from components.prepare.people import FOLDER as PEOPLE
from components.prepare.people import NAMES
from components.prepare.report import REPORT
from components.prepare.sources import Catalogue
from components.shards import (
    ForgettingPlan,
    ForgottenSample,
    close_plan,
    find_samples,
    is_one_of,
    load_split,
    open_manifest,
    open_plan,
    plan_forgetting,
    put_in_place,
    without_forgotten,
)

logger = logging.getLogger(__name__)
FORGOTTEN = "forgotten.json"


@dataclass(frozen=True)
class ForgottenInSet:
    """What was done in one set.

    Attributes:
        folder: The set.
        samples: Samples that went.
        files: Other files that went or lost rows: pages, embeddings, the list of rejects.
        left: Samples of the person that are still there; empty when all went well.
    """

    folder: Path
    samples: tuple[ForgottenSample, ...]
    files: tuple[Path, ...]
    left: tuple[ForgottenSample, ...]


def forget_in_set(person: str, folder: Path, records: Collection[Path] = ()) -> ForgottenInSet:
    """Removes a person from a prepared set, and looks again.

    Killed at any moment, a second call does the rest. Nobody else may write in the folder meanwhile; a
    training run that streams from it stops with an error that names the tar, and goes on where it was under
    the same name.

    Args:
        person: As the samples name it, with or without its source (`faces/ada`, `ada`).
        folder: The set's folder.
        records: Copies of the manifest elsewhere, e.g. of runs that train on the set.

    Raises:
        ValueError: There is no manifest.
        DamagedShard: A tar cannot be read.
    """
    samples: list[ForgottenSample] = []
    files: list[Path] = []
    while plan := open_plan(folder) or plan_forgetting(folder, [person]):
        put_in_place(folder, plan)
        files += _forget_beside(folder, plan, person)
        for record in records:
            kept = ShardManifest.load(record)
            without_forgotten(kept, plan).save(record)
        close_plan(folder)
        samples += plan.samples
    files += _forget_rejects(folder, person)
    left = find_samples(folder, [person])
    return ForgottenInSet(folder, tuple(samples), tuple(dict.fromkeys(files)), tuple(left))


def check_nothing_half_forgotten(folder: Path) -> None:
    """Raises a ValueError where forgetting somebody was cut off."""
    if open_plan(folder) is not None:
        raise ValueError(f"forgetting a person was cut off in {folder}: run `photoverse forget` again first")


def leave_out_forgotten(catalogue: Catalogue, folder: Path, people: Collection[str]) -> None:
    """Takes the photos of forgotten people off the list: by name, and those that went from this folder."""
    files = _forgotten_files(folder)
    if files or people:
        count = catalogue.leave_out(lambda file, person: file in files or is_one_of(person, people))
        if count:
            logger.info("%d photos of people who were forgotten are left out", count)


def _forget_beside(folder: Path, plan: ForgettingPlan, person: str) -> list[Path]:
    """Removes what else the folder holds of the plan's samples; returns the files that changed or went."""
    gone = {sample.file for sample in plan.samples}
    names = folder / PEOPLE / NAMES
    if names.is_file():
        known: dict[str, str] = json.loads(names.read_text(encoding="utf-8"))
        gone |= {file for file, who in known.items() if is_one_of(who, [person])}
    _rewrite(folder / FORGOTTEN, sorted(_forgotten_files(folder) | gone))
    if names.is_file():
        _rewrite(names, {file: who for file, who in known.items() if file not in gone})
    _forget_in_journal(folder, plan)
    changed = [path for path in sorted((folder / PEOPLE).glob("*.parquet")) if _drop_rows(path, gone)]
    for page in (folder / REPORT, folder / CONTACT_SHEET):
        if page.is_file():
            page.unlink()
            changed.append(page)
    return changed


def _forget_in_journal(folder: Path, plan: ForgettingPlan) -> None:
    """Brings the journal's entries in line with the new tars, so that no later run makes them again."""
    keys = {sample.key for sample in plan.samples}
    for shard in plan.shards:
        path = folder / JOURNAL / f"{Path(shard.name).stem}.json"
        if not path.is_file():
            continue
        entry = ShardEntry.model_validate_json(path.read_text(encoding="utf-8"))
        photos = tuple(
            photo.model_copy(update={"samples": tuple(key for key in photo.samples if key not in keys)})
            for photo in entry.photos
            if not photo.samples or {*photo.samples} - keys
        )
        alone = open_manifest(folder).model_copy(update={"shards": (shard,)})
        metas = [s["meta.json"] for s in load_split(alone, shard.split, ())] if shard.samples else []
        update = {"shard": shard, "photos": photos, "counts": counts_of(metas)}
        write_text_atomic(path, entry.model_copy(update=update).model_dump_json(indent=1) + "\n")


def _forget_rejects(folder: Path, person: str) -> list[Path]:
    """Removes the person's rejected photos from list and page: those in a folder of the person's name."""
    path = folder / REJECTS
    if not path.is_file():
        return []
    rows = pq.read_table(path).to_pylist()
    kept = [row for row in rows if person not in PurePosixPath(row["file"]).parts[:-1]]
    if len(kept) == len(rows):
        return []
    write_rejects(path, iter(kept))
    page = folder / REPORT
    page.unlink(missing_ok=True)
    return [path, page]


def _drop_rows(path: Path, files: Collection[str]) -> bool:
    """Removes the rows of some photos from a table of embeddings; says whether there were any."""
    table = pq.read_table(path)
    kept = table.filter(pc.invert(pc.is_in(table["file"], pa.array(sorted(files), pa.string()))))
    if len(kept) == len(table):
        return False
    with atomic_path(path) as temporary:
        pq.write_table(kept, temporary)
    return True


def _forgotten_files(folder: Path) -> set[str]:
    path = folder / FORGOTTEN
    return set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()


def _rewrite(path: Path, values: object) -> None:
    write_text_atomic(path, json.dumps(values, ensure_ascii=False, indent=0) + "\n")
