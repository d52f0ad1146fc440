"""FFHQ (Karras et al., CVPR 2019), as its download script lays it out.

    ffhq-dataset-v2.json                          "0": {category, metadata, image, thumbnail, in_the_wild}
    images1024x1024/00000/00000.png ...           aligned; a folder holds 1,000
    in-the-wild-images/00000/00000.png ...        or thumbnails128x128/...

The first of these image folders that is there is taken. The JSON, if there, names photos, authors and the
licence of each; the set as a whole is CC BY-NC-SA 4.0. Nobody is named: each photo is a person of its own
(see `prepare.person_similarity`).
"""

import io
import json
from collections.abc import Iterator
from typing import Any, ClassVar, TextIO

from components.prepare.sources.base import Source
from components.prepare.sources.record import Row

TABLE = "ffhq-dataset-v2.json"
FOLDERS = {  # folder -> key in the table
    "images1024x1024": "image",
    "in-the-wild-images": "in_the_wild",
    "thumbnails128x128": "thumbnail",
}


class FFHQSource(Source):
    """FFHQ with or without its JSON."""

    licence: ClassVar[str] = "CC-BY-NC-SA-4.0"

    def rows(self) -> Iterator[Row]:
        """Yields a row for each photo of the table, or for each PNG where there is no table."""
        folder = next((name for name in FOLDERS if self.store.exists(name)), None)
        if folder is None:
            raise self.lay_out_error(f"none of {', '.join(FOLDERS)}")
        if not self.store.exists(TABLE):
            yield from (
                {"file": name}
                for name in self.store.names()
                if name.startswith(f"{folder}/") and name.endswith(".png")
            )
            return
        with io.TextIOWrapper(self.store.open(TABLE), "utf-8") as text:
            try:
                for _, entry in json_items(text):
                    yield self._row(entry, FOLDERS[folder], folder)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise self.lay_out_error(f"{TABLE} is not a JSON object of objects: {error}") from error

    def _row(self, entry: dict, key: str, folder: str) -> Row:
        metadata, file = entry.get("metadata", {}), entry[key]["file_path"]
        flat = f"{folder}/{file.rsplit('/', 1)[1]}"
        if not self.store.exists(file) and self.store.exists(flat):
            file = flat  # downloads without folders of 1,000
        return {
            "file": file,
            "part": entry.get("category", ""),
            "licence": metadata.get("license", ""),
            "author": metadata.get("author", ""),
            "photo_url": metadata.get("photo_url", ""),
            "country": metadata.get("country", ""),
        }


def json_items(text: TextIO, piece: int = 2**20) -> Iterator[tuple[str, Any]]:
    """Yields the items of one JSON object of objects without holding it: FFHQ's has 255 MB.

    Args:
        text: Open file.
        piece: Characters read at once.

    Raises:
        json.JSONDecodeError: It is no such object, or is cut.
    """
    decode, ahead, at = json.JSONDecoder().raw_decode, "", 0

    def expect(wanted: str) -> str:
        """Returns the next character that is no space; the buffer then starts behind it."""
        nonlocal ahead, at
        while not (rest := ahead[at:].lstrip()):
            ahead, at = text.read(piece), 0
            if not ahead:
                raise json.JSONDecodeError(f"ends where one of {wanted!r} should be", "", 0)
        if rest[0] not in wanted:
            raise json.JSONDecodeError(f"{rest[0]!r} where one of {wanted!r} should be", rest[:40], 0)
        ahead, at = rest, 1
        return rest[0]

    def value() -> Any:
        nonlocal ahead, at
        while True:
            ahead, at = ahead[at:].lstrip(), 0
            try:
                found, at = decode(ahead)
                return found
            except json.JSONDecodeError:
                more = text.read(piece)
                ahead += more
                if not more:
                    raise

    expect("{")
    while (sign := expect('",}')) != "}":
        if sign == ",":
            continue
        at -= 1  # the quotation mark belongs to the name
        name = value()
        expect(":")
        yield name, value()
