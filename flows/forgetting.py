"""`photoverse forget`: everything that is kept of a person, in every room, with a list as proof."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from components.core import ShardManifest
from flows.batch_summary import drop_summaries
from flows.stage_store import at_hand
from flows.stages import alone

GRIDS = "step_??????.png"
"""Sample pictures that a training run drew of people whom it does not train on; they name nobody."""


SHOW_PEOPLE = ("*/personalize", "*/evaluate", "*/train/*", "cache/prepare/*")
KNOW_SETS = ("cache/prepare/*/record.json", f"*/records/{ShardManifest.stage}.json")


@dataclass
class Proof:
    """What went, and what did not.

    Attributes:
        person: The person's ID.
        removed: One line a thing that went.
        files: How many files and samples that were.
        left: One line a thing that is still there; empty when all went well.
    """

    person: str
    removed: list[str] = field(default_factory=list)
    files: int = 0
    left: list[str] = field(default_factory=list)

    def take(self, removed: list[Path], left: list[Path]) -> None:
        """Notes files."""
        self.removed += [str(path) for path in removed]
        self.left += [str(path) for path in left]
        self.files += len(removed)


def forget_everywhere(person: str, root: str, also: list[Path], store: str | None = None) -> Proof:
    """Removes what is kept of a person below the root and the other folders, and looks again.

    Args:
        person: The ID that consents, shards and reports name.
        root: Folder of all runs.
        also: More folders.
        store: URL of the store that stands for the root; what may show a person is copied here and sent back.
    """
    with at_hand(store, root, *SHOW_PEOPLE, files=KNOW_SETS) as place:
        proof = _forget(person, place, also)
        if store:
            proof.removed = [line.replace(str(place), store) for line in proof.removed]
            proof.left = [line.replace(str(place), store) for line in proof.left]
        return proof


def _forget(person: str, root: Path, also: list[Path]) -> Proof:
    from components.evaluation import forget_pictures
    from components.inference import CardStore, forget_person

    places, proof = [root, *also], Proof(person)
    # Cards first, with the audit log: from then on nothing of the person is made.
    cards = forget_person(person, CardStore(root / "people"), places)
    proof.take(list(cards.removed), list(cards.left))
    _forget_in_sets(places, proof)
    proof.take(*forget_pictures(person, places))
    summaries = drop_summaries([Path(os.environ["PREFECT_HOME"])])
    if summaries["removed"]:
        count = summaries["removed"]
        proof.removed.append(f"{count} summaries of batches from Prefect, which held thumbnails")
    if summaries["unreachable"]:
        proof.left.append("perhaps: Prefect did not answer; its summaries of batches hold thumbnails")
    return proof


def _forget_in_sets(places: list[Path], proof: Proof) -> None:
    from components.prepare import forget_in_set
    from components.shards import sets_below

    measured = False
    for folder in sets_below(places):
        with alone(folder):
            done = forget_in_set(proof.person, folder, list(_copies(folder, places)))
        proof.removed += [f"{s.key} from {folder / s.shard} (made of {s.file})" for s in done.samples]
        proof.files += len(done.samples)
        proof.left += [f"{s.key} in {folder / s.shard}" for s in done.left]
        proof.take(list(done.files), [])
        measured |= any(not sample.shard.startswith("train-") for sample in done.samples)
    if measured:  # people who are not trained on are drawn now and then, to be looked at
        grids = sorted({path for at in places for path in at.rglob(GRIDS)})
        for path in grids:
            path.unlink()
        proof.take(grids, [])


def _copies(folder: Path, places: list[Path]) -> Iterator[Path]:
    """Yields the records that are copies of a set's manifest: the set's own, and those of runs."""
    names = ("record.json", f"{ShardManifest.stage}.json")
    for path in sorted({path for at in places for name in names for path in at.rglob(name)}):
        try:
            record = ShardManifest.load(path)
        except (OSError, ValueError):
            continue
        if Path(record.folder).resolve() == folder.resolve() or _cached(record.folder) == _cached(folder):
            yield path


def _cached(folder: str | Path) -> tuple[str, ...] | Path:
    """Returns what a set below a run root's cache is known by, wherever the root lies."""
    parts = Path(folder).parts[-3:]
    return parts if parts[0] == "cache" else Path(folder)
