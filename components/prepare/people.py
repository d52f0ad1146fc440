"""Who is the same person, where nobody said: photos whose identity embeddings are close form one person.

Only photos without an identity label are compared, each with each (exactly, block by block: 100,000 photos
take minutes, a million hours). Embeddings and names are kept in `people/` of the output folder: a later run
embeds only new photos, and a person keeps its name, and with it its split, when photos are added. Persons
that a new photo links become one, with the name that sorts first.

Who asks for this holds all names and embeddings in memory: 2.3 KB a photo at 512 numbers an embedding.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core import Progress, atomic_path, fingerprint, write_text_atomic
from components.face import PhotoError
from components.prepare.embed import FaceEmbedder
from components.prepare.sources import Catalogue, Library, split_of
from components.prepare.spec import PrepareSpec, weights_mark
from components.prepare.transforms import Reject

if TYPE_CHECKING:
    from components.prepare.engines import Engine

logger = logging.getLogger(__name__)
FOLDER, NAMES = "people", "names.json"
PART_ROWS = 4096
BLOCK = 2048
SCHEMA = pa.schema(
    [("file", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("embedding", pa.binary())]
)


def find_people(
    catalogue: Catalogue, library: Library, spec: PrepareSpec, folder: Path, engine: "Engine"
) -> None:
    """Groups unlabelled photos into people, and puts each person in one split.

    Args:
        catalogue: All photos; gets the people and their splits.
        library: Reads photos.
        spec: `prepare.person_similarity` decides; None changes nothing.
        folder: Output folder; `people/` in it keeps what was found.
        engine: Embeds the photos.
    """
    threshold = spec.prepare.person_similarity
    if threshold is None:
        return
    unnamed = {record.file: record.person for record in catalogue.records("NOT labelled")}
    embeddings = Embeddings(folder / FOLDER, spec, library)
    embeddings.complete(list(unnamed), engine)
    known = ((file, embeddings.by_file.pop(file, None)) for file in unnamed)
    faces = {file: vector for file, vector in known if vector is not None}
    groups = link(np.stack(list(faces.values())), threshold) if faces else []
    names_file = folder / FOLDER / NAMES
    earlier = json.loads(names_file.read_text(encoding="utf-8")) if names_file.is_file() else {}
    person_of = name_groups([unnamed[file] for file in faces], groups, earlier)
    write_text_atomic(names_file, json.dumps(person_of, ensure_ascii=False, indent=0) + "\n")
    logger.info("%d unlabelled photos are of %d people", len(faces), len(set(person_of.values())))
    catalogue.rename_people(person_of, lambda person: split_of(person, spec.prepare))


def name_groups(photos: list[str], groups: list[int], earlier: dict[str, str]) -> dict[str, str]:
    """Returns photo -> person: the first of the names that the group's photos had, else its first photo."""
    members: dict[int, list[str]] = {}
    for photo, number in zip(photos, groups, strict=True):
        members.setdefault(number, []).append(photo)
    person_of: dict[str, str] = {}
    for group in members.values():
        known = [earlier[photo] for photo in group if photo in earlier]
        person_of |= dict.fromkeys(group, min(known or group))
    return person_of


def link(embeddings: np.ndarray, threshold: float, block: int = BLOCK) -> list[int]:
    """Returns the number of each row's group: rows linked by a chain of similarities >= threshold.

    Args:
        embeddings: float32 (N, D), unit norm.
        threshold: Cosine.
        block: Rows compared at once; memory is block x block.
    """
    parent = list(range(len(embeddings)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a in range(0, len(embeddings), block):
        for b in range(a, len(embeddings), block):
            close = embeddings[a : a + block] @ embeddings[b : b + block].T >= threshold
            for i, j in np.argwhere(close):
                first, second = sorted((root(a + int(i)), root(b + int(j))))
                parent[second] = first
    return [root(i) for i in range(len(embeddings))]


class Embeddings:
    """Identity embeddings by file, kept in parquet parts; a kill costs one part.

    Attributes:
        by_file: File -> float32 (D,), or None where the photo has no usable face.
    """

    def __init__(self, folder: Path, spec: PrepareSpec, library: Library) -> None:
        self.folder, self.spec, self.photo_library = folder, spec, library
        self.by_file: dict[str, np.ndarray | None] = {}
        self._mark = embedding_mark(spec)

    def complete(self, files: list[str], engine: "Engine") -> None:
        """Loads what is known of these files and embeds the others."""
        states = {file: self.photo_library.state(file) for file in files}
        for row in self._kept():
            if states.get(row["file"]) == (row["size"], row["mtime_ns"]):
                self.by_file[row["file"]] = _vector(row["embedding"])
        todo = [file for file in files if file not in self.by_file]
        if not todo:
            return
        parts = [todo[i : i + PART_ROWS] for i in range(0, len(todo), PART_ROWS)]
        with Progress("who is who", len(todo), "photos") as progress:
            for part in parts:
                rows: list[dict] = []
                for table in engine.embeddings(part, self.spec, self.photo_library):
                    rows += table.to_pylist()
                    progress.advance(len(table))
                self._keep(
                    [row | dict(zip(("size", "mtime_ns"), states[row["file"]], strict=True)) for row in rows]
                )

    def _keep(self, rows: list[dict]) -> None:
        self.by_file |= {row["file"]: _vector(row["embedding"]) for row in rows}
        number = len(list(self.folder.glob(f"{self._mark}-*.parquet")))
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        with atomic_path(self.folder / f"{self._mark}-{number:06d}.parquet") as temporary:
            pq.write_table(table, temporary)

    def _kept(self) -> Iterator[dict]:
        for path in sorted(self.folder.glob("*.parquet")):
            if path.name.startswith(f"{self._mark}-"):
                yield from pq.read_table(path).to_pylist()
            else:
                path.unlink()  # other weights, other detector


def embedding_mark(spec: PrepareSpec) -> str:
    """Returns the identity of all that an embedding depends on, except the photo."""
    face = spec.face.model_dump(mode="json", include={"detector", "min_score"})
    limits = [spec.face.detect_min_side, spec.face.detect_max_side, spec.prepare.min_face_px]
    return fingerprint(face, limits, weights_mark(spec.identity_onnx), spec.face.pack)


class EmbedStage:
    """Photos -> identity embedding of the largest face; null where there is none."""

    def __init__(self, spec: PrepareSpec, library: Library) -> None:
        import cv2

        cv2.setNumThreads(1)
        self.photo_library = library
        self.embedder = FaceEmbedder(spec.prepare, spec.face, spec.identity_onnx)

    def __call__(self, files: pa.Table) -> pa.Table:
        """Turns a table with the column `file` into (file, embedding)."""
        rows = [{"file": file, "embedding": self.embed(file)} for file in files["file"].to_pylist()]
        return pa.Table.from_pylist(rows, schema=pa.schema([SCHEMA.field("file"), SCHEMA.field("embedding")]))

    def embed(self, file: str) -> bytes | None:
        """Returns the bytes of float32 (D,), None for a photo that preparation will reject too."""
        try:
            return self.embedder.embed(self.photo_library, file)[1].tobytes()
        except (Reject, PhotoError, ValueError):
            return None


def _vector(data: bytes | None) -> np.ndarray | None:
    return None if data is None else np.frombuffer(data, np.float32)
