"""A batch of requests, read strictly, each on its own: a faulty one is an error row, never the end of all.

{"id": "anna-1", "photo": "anna.jpg", "prompt": "S* as an astronaut", "seed": 7, "dials": {"sigma": 0.8},
 "consent": {"person": "anna", "purpose": "birthday cards", "given": "2026-05-01"}}
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from components.core import StrictConfig, deep_merge, fingerprint, sha256_file
from components.inference.config import BatchConfig, Dials
from components.inference.consent import Consent
from components.inference.people import CardStore
from components.inference.photo_places import find_photo, photo_bytes
from components.inference.request_files import RawRequest, read_place

ID = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


class PictureRequest(StrictConfig):
    """One request.

    Attributes:
        id: Names the pictures; unique in its file.
        photo: File below the photos' root, an allowed URL, or several of the same person.
        card: ID of a kept identity card, in place of photo and consent.
        prompt: What to show; S* is the person.
        negative_prompt: What not to show; None takes the batch's.
        seed: Of the first picture; the next ones count up.
        num_images: How many pictures.
        dials: Laid over the batch's dials.
        consent: Who agreed to what, and when; a photo needs it, a card has its own.
    """

    id: str = Field(pattern=f"^{ID}$")
    photo: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    card: str | None = None
    prompt: str = Field(min_length=1)
    negative_prompt: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    num_images: int = Field(default=1, ge=1)
    dials: dict[str, Any] = {}
    consent: Consent | None = None

    @model_validator(mode="after")
    def _one_person(self) -> Self:
        if (self.photo is None) == (self.card is None):
            raise ValueError("who is meant? give photo (with consent) or card")
        if self.photo is not None and self.consent is None:
            raise ValueError("consent: a photo needs it: person, purpose, given")
        if self.card is not None and self.consent is not None:
            raise ValueError("consent: a card has its own")
        return self

    @property
    def photos(self) -> tuple[str, ...]:
        """The photos, none, one or several."""
        return (self.photo,) if isinstance(self.photo, str) else self.photo or ()

    @property
    def files(self) -> list[str]:
        """Names of the pictures, below the batch's `pictures/`."""
        return [f"{self.id}-{k}.png" for k in range(self.num_images)]


@dataclass(frozen=True)
class ReadLine:
    """One request, read.

    Attributes:
        line: Number in its file, from 1.
        id: The request's id, or "line-<number>" where it cannot be read.
        source: Name of its file in an inbox, else empty.
        request: What was asked for; None if it is at fault.
        dials: As the picture will be drawn.
        photo_places: Paths or URLs of the photos.
        card_path: File of the card.
        person: ID of the person.
        hash: Identity of request, photos and model: what is done under this hash is done.
        error: What is wrong with it; never repeats the photo or the words of the request.
    """

    line: int
    id: str
    source: str = ""
    request: PictureRequest | None = None
    dials: Dials = Dials()
    photo_places: tuple[str, ...] = ()
    card_path: str = ""
    person: str = ""
    hash: str = ""
    error: str | None = None


def read_requests(
    place: Path | str, config: BatchConfig, model: dict[str, Any], people: CardStore | None = None
) -> list[ReadLine]:
    """Reads every request; a faulty one becomes a `ReadLine` with its error.

    Args:
        place: JSONL, CSV or Parquet file, or an inbox of such files; local or a URL.
        config: Limits and defaults.
        model: Whatever else the pictures depend on (adapter hash, face settings), for the hashes.
        people: The kept cards; it knows too whose consent was withdrawn.

    Raises:
        ValueError: The place is missing, a file is damaged, or there is no request.
    """
    raw, folder = read_place(place)
    root = config.photos_root or folder
    return _without_doubles([_read_one(one, config, root, model, people) for one in raw])


def _read_one(
    raw: RawRequest, config: BatchConfig, root: str, model: dict[str, Any], people: CardStore | None
) -> ReadLine:
    name, values = f"line-{raw.line}", raw.values
    try:
        if raw.error is not None:
            raise ValueError(raw.error)
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object, found {type(values).__name__}")
        name = values["id"] if re.fullmatch(ID, str(values.get("id"))) else name
        request = PictureRequest.parse(values, source="the request", told=False)
        _check_limits(request, config)
        dials = Dials.parse(deep_merge(config.dials.model_dump(), request.dials), source="dials", told=False)
        if request.card and dials.strength:
            raise ValueError("dials.strength starts from a photo: a card has none")
        places = tuple(find_photo(photo, root, config.photo_urls) for photo in request.photos)
        contents = [_digest(place, config.photo_rules.max_file_mb) for place in places]
        card, consent = _person(request, people)
        contents += [sha256_file(Path(card))] if card else []
        negative = config.negative_prompt if request.negative_prompt is None else request.negative_prompt
        request = request.model_copy(update={"negative_prompt": negative, "consent": consent})
        settled = request.model_dump(mode="json", exclude={"photo", "card", "dials"})
        identity = fingerprint(settled, contents, dials, config.photo_rules, model)
    except ValueError as error:
        return ReadLine(raw.line, name, raw.source, error=" ".join(str(error).split())[:500])
    return ReadLine(raw.line, request.id, raw.source, request, dials, places, card, consent.person, identity)


def _person(request: PictureRequest, people: CardStore | None) -> tuple[str, Consent]:
    """Returns the card's file (or nothing) and the consent that the request rests on."""
    if request.card is not None:
        if people is None:
            raise ValueError("card: no folder of cards is set for this batch")
        card = people.load(request.card)
        return str(people.path(request.card)), card.consent
    assert request.consent is not None
    request.consent.check_named()
    if people is not None:
        people.check_not_withdrawn(request.consent)
    return "", request.consent


def _digest(place: str, max_mb: int) -> str:
    return hashlib.sha256(photo_bytes(place, max_mb)).hexdigest()


def _check_limits(request: PictureRequest, config: BatchConfig) -> None:
    for what, found, most in (
        ("characters of prompt", len(request.prompt), config.max_prompt_characters),
        ("num_images", request.num_images, config.max_images),
    ):
        if found > most:
            raise ValueError(f"{what}: {found} is above the limit of {most}")


def _without_doubles(read: Sequence[ReadLine]) -> list[ReadLine]:
    """Turns every later request with an id that its file had before into an error."""
    seen: dict[tuple[str, str], int] = {}
    result = []
    for line in read:
        first = seen.setdefault((line.source, line.id), line.line)
        if first != line.line:
            error = f"id {line.id!r} is that of line {first}"
            line = ReadLine(line.line, f"line-{line.line}", line.source, error=error)
        result.append(line)
    return result
