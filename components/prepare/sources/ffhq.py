"""FFHQ (Karras et al., CVPR 2019), as its download script lays it out.

    ffhq-dataset-v2.json                          "0": {category, metadata, image, thumbnail, in_the_wild}
    images1024x1024/00000/00000.png ...           aligned; a folder holds 1,000
    in-the-wild-images/00000/00000.png ...        or thumbnails128x128/...

The first of these image folders that is there is taken. The JSON, if there, names photos, authors and the
licence of each; the set as a whole is CC BY-NC-SA 4.0. Nobody is named: each photo is a person of its own
(see `prepare.person_similarity`).
"""

import json
from collections.abc import Iterator
from typing import ClassVar

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
        entries = json.loads(self.store.read(TABLE))
        for number in sorted(entries, key=int):
            yield self._row(entries[number], FOLDERS[folder], folder)

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
