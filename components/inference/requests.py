"""A file of requests: one JSON object a line, read strictly, each line on its own.

{"id": "anna-1", "photo": "anna.jpg", "prompt": "S* as an astronaut", "seed": 7, "dials": {"sigma": 0.8}}
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from components.core import StrictConfig, deep_merge, fingerprint, inside, sha256_file
from components.inference.config import BatchConfig, Dials


class PictureRequest(StrictConfig):
    """One line of the file.

    Attributes:
        id: Names the pictures; unique in the file.
        photo: File below the photos' root, or several of the same person.
        prompt: What to show; S* is the person.
        negative_prompt: What not to show; None takes the batch's.
        seed: Of the first picture; the next ones count up.
        num_images: How many pictures.
        dials: Laid over the batch's dials.
        consent: What the person agreed to.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    photo: str | tuple[str, ...] = Field(min_length=1)
    prompt: str = Field(min_length=1)
    negative_prompt: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    num_images: int = Field(default=1, ge=1)
    dials: dict[str, Any] = {}
    consent: str = "not stated"

    @property
    def photos(self) -> tuple[str, ...]:
        """The photos, one or several."""
        return (self.photo,) if isinstance(self.photo, str) else self.photo

    @property
    def files(self) -> list[str]:
        """Names of the pictures, below the batch's `pictures/`."""
        return [f"{self.id}-{k}.png" for k in range(self.num_images)]


@dataclass(frozen=True)
class ReadLine:
    """One line of the file, read.

    Attributes:
        line: Number in the file, from 1.
        id: The request's id, or "line-<number>" where it cannot be read.
        request: What was asked for; None if it is at fault.
        dials: As the picture will be drawn.
        photo_paths: Where the photos are.
        hash: Identity of request, photos and model: what is done under this hash is done.
        error: What is wrong with it.
    """

    line: int
    id: str
    request: PictureRequest | None = None
    dials: Dials = Dials()
    photo_paths: tuple[str, ...] = ()
    hash: str = ""
    error: str | None = None


def read_requests(file: Path, config: BatchConfig, model: dict[str, Any]) -> list[ReadLine]:
    """Reads every line that is not empty; a faulty one becomes a `ReadLine` with its error.

    Args:
        file: The JSONL file.
        config: Limits and defaults.
        model: Whatever else the pictures depend on (adapter hash, face settings), for the hashes.

    Raises:
        ValueError: The file is missing, no UTF-8, or holds no request.
    """
    if not file.is_file():
        raise ValueError(f"no requests file at {file}")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}") from error
    root = Path(config.photos_root) if config.photos_root else file.parent
    read: list[ReadLine] = []
    for number, text in enumerate(lines, start=1):
        if text.strip():
            read.append(_read_line(number, text, config, root, model))
    if not read:
        raise ValueError(f"{file} holds no request")
    return _without_doubles(read)


def _read_line(number: int, text: str, config: BatchConfig, root: Path, model: dict[str, Any]) -> ReadLine:
    name = f"line-{number}"
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object, found {type(values).__name__}")
        name = values["id"] if isinstance(values.get("id"), str) and len(values["id"]) <= 100 else name
        request = PictureRequest.parse(values, source="the request")
        _check_limits(request, config)
        merged = deep_merge(config.dials.model_dump(), request.dials)
        dials = Dials.parse(merged, source="dials of the request")
        paths = tuple(str(_existing(root, photo)) for photo in request.photos)
        photos = [sha256_file(Path(path)) for path in paths]
        negative = config.negative_prompt if request.negative_prompt is None else request.negative_prompt
        request = request.model_copy(update={"negative_prompt": negative})
        settled = request.model_dump(mode="json", exclude={"photo", "dials"})
        identity = fingerprint(settled, photos, dials, config.photo_rules, model)
    except ValueError as error:
        return ReadLine(number, name, error=" ".join(str(error).split()))
    return ReadLine(number, request.id, request, dials, paths, identity)


def _check_limits(request: PictureRequest, config: BatchConfig) -> None:
    for what, found, most in (
        ("characters of prompt", len(request.prompt), config.max_prompt_characters),
        ("num_images", request.num_images, config.max_images),
    ):
        if found > most:
            raise ValueError(f"{what}: {found} is above the limit of {most}")


def _existing(root: Path, photo: str) -> Path:
    path = inside(root, photo)
    if not path.is_file():
        raise ValueError(f"no photo {photo!r} in {root}")
    return path


def _without_doubles(read: list[ReadLine]) -> list[ReadLine]:
    """Turns every later line with an id that was seen before into an error."""
    seen: dict[str, int] = {}
    result = []
    for line in read:
        if line.id in seen:
            error = f"id {line.id!r} is that of line {seen[line.id]}"
            line = ReadLine(line.line, f"line-{line.line}", error=error)
        seen.setdefault(line.id, line.line)
        result.append(line)
    return result
