"""A held-out set balanced over group and gender, after the paper's 326 photos (PhotoVerse, evaluation).

In: one labelled source. Out: a plain folder of photos with `metadata.csv`, all of split "heldout", and
`diverse_set.json`, which says what was asked and found in each cell. One photo a person; a cell with too few
stays short, and no other cell fills up for it.

Nobody in it is in training: people whom the split rule gives to training are no candidates, and with a shard
set to compare with, neither is a person named there, a photo whose bytes are there, or a face that is similar
to one of its faces.
"""

import csv
import hashlib
import io
import logging
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field

from components.core import StrictConfig, derive_seed, fingerprint, write_bytes_atomic, write_text_atomic
from components.face import FaceConfig, PhotoError, identity_onnx_path
from components.prepare.config import PrepareConfig, SourceConfig
from components.prepare.embed import FaceEmbedder
from components.prepare.sources import Library, PhotoRecord
from components.prepare.transforms import Reject
from components.shards import load_split, open_manifest

logger = logging.getLogger(__name__)
RECORD, TABLE = "diverse_set.json", "metadata.csv"
COLUMNS = ("file", "identity", "group", "gender", "age", "split", "licence", "consent", "original")
TRAINED_SPLITS = ("train", "validation")
Cell = tuple[str, str]


class DiverseRequest(StrictConfig):
    """What is asked for.

    Attributes:
        count: Photos (PhotoVerse, evaluation: 326).
        groups: Words for groups, in the source's `groups` table's sense.
        genders: Words for genders.
        seed: Another seed picks other people.
        any_split: Also take people whom the split rule does not hold out: for a source that nobody trains on.
        same_person: Cosine of identity embeddings from which two faces count as one person.
    """

    count: int = Field(default=326, ge=1)
    groups: tuple[str, ...] = Field(default=("Black", "Brown", "White", "Yellow"), min_length=1)
    genders: tuple[str, ...] = Field(default=("female", "male"), min_length=1)
    seed: int = Field(default=0, ge=0)
    any_split: bool = False
    same_person: float = Field(default=0.5, gt=0, lt=1)

    def asked(self) -> dict[Cell, int]:
        """Returns cell -> photos: the same for each; the first cells take the rest."""
        cells = list(product(self.groups, self.genders))
        each, rest = divmod(self.count, len(cells))
        return {cell: each + (i < rest) for i, cell in enumerate(cells)}


class CellCount(StrictConfig):
    """One group and gender; `candidates` are photos that the source has of it and training has not."""

    group: str
    gender: str
    asked: int
    found: int
    candidates: int


class DiverseSet(StrictConfig):
    """What was asked and what was found; `left_out` counts photos by why they were not taken."""

    request: DiverseRequest
    source: SourceConfig
    training: str | None
    asked: int
    found: int
    cells: tuple[CellCount, ...]
    left_out: dict[str, int]
    fingerprint: str


class Trained:
    """Who is in training: names, bytes and faces of a shard set.

    Args:
        path: The set's folder or manifest; None knows nobody.
    """

    def __init__(self, path: Path | None) -> None:
        self.people: set[str] = set()
        self.sha256: set[str] = set()
        faces: list[np.ndarray] = []
        manifest = None if path is None else open_manifest(path)
        for shard in manifest.shards if manifest else ():
            if manifest and shard.split in TRAINED_SPLITS:
                one = manifest.model_copy(update={"shards": (shard,)})
                for sample in load_split(one, shard.split, ("identity.npy",)):
                    self.people.add(sample["meta.json"]["person"])
                    self.sha256.add(sample["meta.json"]["sha256"])
                    faces.append(sample["identity.npy"])
        self.faces = np.stack(faces) if faces else None


def pick_diverse_set(
    request: DiverseRequest,
    source: SourceConfig,
    config: PrepareConfig,
    face: FaceConfig,
    *,
    base: str,
    out: Path,
    training: Path | None = None,
) -> DiverseSet:
    """Picks the set and writes it to a new folder.

    Args:
        request: Count, groups, genders.
        source: The labelled photos.
        config: Rule of the splits, limits on photos; the same as training's.
        face: Detector and identity network; the same as training's.
        base: Base model folder, whose `face_pack` holds the identity network if `face` names none.
        out: Must not hold a set yet.
        training: Shard set whose people must not be in it.

    Raises:
        ValueError: The folder is taken, the source has no labelled photos, or the shard set was made with
            another identity network.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: name a new folder for the set")
    library = Library(config.model_copy(update={"sources": (source,)}))
    trained = Trained(training)
    left_out: Counter[str] = Counter()
    candidates = cells_of(library.records(), request, trained.people, left_out)
    picker = Picker(library, trained, FaceEmbedder(config, face, str(identity_onnx_path(face, Path(base)))))
    rows: list[dict[str, str]] = []
    counts = []
    for (group, gender), asked in request.asked().items():
        records = candidates[group, gender]
        taken = picker.take(records, asked, request, left_out)
        rows += [_write_photo(out, record, data, len(rows) + i) for i, (record, data) in enumerate(taken)]
        counts.append(
            CellCount(group=group, gender=gender, asked=asked, found=len(taken), candidates=len(records))
        )
    _write_table(out / TABLE, rows)
    found = DiverseSet(
        request=request,
        source=source,
        training=None if training is None else str(training),
        asked=request.count,
        found=len(rows),
        cells=tuple(counts),
        left_out=dict(sorted(left_out.items())),
        fingerprint=fingerprint(request, [row["sha256"] for row in rows]),
    )
    write_text_atomic(out / RECORD, found.model_dump_json(indent=1) + "\n")
    return found


def cells_of(
    records: list[PhotoRecord], request: DiverseRequest, trained_people: set[str], left_out: Counter[str]
) -> defaultdict[Cell, list[PhotoRecord]]:
    """Returns cell -> candidates in the order in which they are tried, a pure function of the seed.

    Raises:
        ValueError: No photo has a group and a gender that are asked for.
    """
    asked = request.asked()
    cells: defaultdict[Cell, list[PhotoRecord]] = defaultdict(list)
    labelled = 0
    for record in records:
        cell = (record.about.get("group", ""), record.about.get("gender", "").lower())
        labelled += cell in asked
        if cell not in asked:
            left_out["of no cell"] += 1
        elif record.person in trained_people or (record.split != "heldout" and not request.any_split):
            left_out["person in training"] += 1
        else:
            cells[cell].append(record)
    if not labelled:
        raise ValueError(
            f"none of {len(records)} photos has a group of {', '.join(request.groups)} and a gender of"
            f" {', '.join(request.genders)}: the source must be labelled"
        )
    for found in cells.values():
        found.sort(key=lambda record: derive_seed(request.seed, "diverse", record.file))
    return cells


class Picker:
    """Takes candidates one after the other, and looks at each before it does."""

    def __init__(self, library: Library, trained: Trained, embedder: FaceEmbedder) -> None:
        self.photo_library, self.trained, self.embedder = library, trained, embedder
        self._faces: list[np.ndarray] = []
        self._people: set[str] = set()

    def take(
        self, records: list[PhotoRecord], count: int, request: DiverseRequest, left_out: Counter[str]
    ) -> list[tuple[PhotoRecord, bytes]]:
        """Returns up to `count` photos, each of another person, nobody of whom is in training."""
        taken: list[tuple[PhotoRecord, bytes]] = []
        for record in records:
            if len(taken) == count:
                break
            if record.person in self._people:
                left_out["person taken already"] += 1
                continue
            try:
                data, embedding = self.embedder.embed(self.photo_library, record.file)
            except (Reject, PhotoError) as reject:
                left_out[str(reject.reason)] += 1
                continue
            why = self._why_not(data, embedding, request.same_person)
            if why is None:
                taken.append((record, data))
                self._people.add(record.person)
                self._faces.append(embedding)
            else:
                left_out[why] += 1
        return taken

    def _why_not(self, data: bytes, embedding: np.ndarray, same_person: float) -> str | None:
        if hashlib.sha256(data).hexdigest() in self.trained.sha256:
            return "photo in training"
        if self.trained.faces is not None:
            if self.trained.faces.shape[1] != len(embedding):
                raise ValueError(
                    f"the shard set has identity embeddings of {self.trained.faces.shape[1]} numbers, this"
                    f" identity network gives {len(embedding)}: use the network that the set was made with"
                )
            if float((self.trained.faces @ embedding).max()) >= same_person:
                return "face in training"
        if self._faces and float((np.stack(self._faces) @ embedding).max()) >= same_person:
            return "face taken already"
        return None


def _write_photo(out: Path, record: PhotoRecord, data: bytes, number: int) -> dict[str, str]:
    suffix = PurePosixPath(record.file.rpartition("#")[0] or record.file).suffix.lower()
    about = record.about
    file = f"photos/{number:04d}-{about['group']}-{about['gender']}{suffix if suffix != '.parquet' else ''}"
    write_bytes_atomic(out / file, data)
    facts = {name: str(about.get(name, "")) for name in ("group", "gender", "age", "licence", "consent")}
    return facts | {
        "file": file,
        "identity": record.person,
        "split": "heldout",
        "original": record.file,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(path, buffer.getvalue())
