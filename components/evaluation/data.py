"""Whose photos are judged: held-out samples as `Photo`s, and which of them are references."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.core import ShardManifest


@dataclass(frozen=True)
class Photo:
    """What the evaluation needs of one shard sample.

    Attributes:
        key: Key of the sample.
        person: Identity.
        group: Group of the person, "" if not known.
        gender: Gender label, "" if not known.
        target_uint8: (S, S, 3) RGB, the crop at the base model's resolution; real pictures are judged on this
            one, so that they have the size and sharpness of generated ones.
        landmarks_xy: (5, 2) float32, pixels of `target_uint8`.
        features: (m, T, D) float16, raw features of the identity crop.
        identity: (D_id,) float32, unit-norm embedding of the photo's face, by which candidates are chosen.
    """

    key: str
    person: str
    group: str
    gender: str
    target_uint8: NDArray[np.uint8]
    landmarks_xy: NDArray[np.float32]
    features: NDArray[np.float16]
    identity: NDArray[np.float32]


def photo_of(sample: Mapping[str, Any]) -> Photo:
    """Returns the `Photo` of a decoded shard sample (fields as in components.shards)."""
    meta = sample["meta.json"]
    return Photo(
        key=sample["__key__"],
        person=str(meta["person"]),
        group=str(meta.get("group") or ""),
        gender=str(meta.get("gender") or ""),
        target_uint8=np.asarray(sample["target.png"]),
        landmarks_xy=np.asarray(meta["target_landmarks_xy"], dtype=np.float32).reshape(5, 2),
        features=np.asarray(sample["features.npy"]),
        identity=np.asarray(sample["identity.npy"], dtype=np.float32),
    )


def load_photos(manifest: ShardManifest, split: str) -> list[Photo]:
    """Reads all photos of a split.

    Raises:
        ValueError: The split holds no photo.
    """
    from components.shards import load_split

    fields = ("target.png", "features.npy", "identity.npy")
    return [photo_of(sample) for sample in load_split(manifest, split, fields=fields)]


def choose_people(photos: Sequence[Photo], people: int | None) -> list[Photo]:
    """Keeps the photos of `people` people, taken in turn from each (group, gender), in order of names.

    Args:
        photos: Photos of any number of people.
        people: How many people to keep; None keeps all.

    Raises:
        ValueError: Fewer than two people are there, which leaves no floor to compare with.
    """
    cells: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for photo in sorted(photos, key=lambda photo: photo.person):
        cells[photo.group, photo.gender][photo.person] = None
    turns = chain.from_iterable(zip_longest(*(cells[cell] for cell in sorted(cells))))
    order = list(dict.fromkeys(person for person in turns if person is not None))
    if len(order) < 2:
        raise ValueError(f"{len(order)} people with photos found; the evaluation compares at least 2")
    kept = set(order[:people])
    return sorted((photo for photo in photos if photo.person in kept), key=lambda p: (p.person, p.key))


def choose_references(photos: Sequence[Photo], references_per_person: int) -> list[Photo]:
    """Returns the first photos of each person, by key, in the order of `photos`."""
    taken: dict[str, int] = defaultdict(int)
    references = []
    for photo in sorted(photos, key=lambda p: (p.person, p.key)):
        if taken[photo.person] < references_per_person:
            taken[photo.person] += 1
            references.append(photo)
    return references
