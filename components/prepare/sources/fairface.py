"""FairFace (Karkkainen and Joo, WACV 2021), as its archives unpack.

    fairface_label_train.csv  fairface_label_val.csv      file,age,gender,race,service_test
    train/1.jpg ...  val/1.jpg ...                        padded by 0.25 or 1.25 of the face

Take the set with padding 1.25: the denoising target needs the surroundings of the face. Nobody is named: each
photo is a person of its own (see `prepare.person_similarity`). Licence: CC BY 4.0, says the project's page.
"""

from collections.abc import Iterator
from typing import ClassVar

from components.prepare.sources.base import Source
from components.prepare.sources.record import Row

COLUMNS = ("file", "age", "gender", "race")
PARTS = ("train", "val")


class FairFaceSource(Source):
    """FairFace; its "val" part is held out unless `splits` says otherwise."""

    licence: ClassVar[str] = "CC-BY-4.0"

    def rows(self) -> Iterator[Row]:
        """Yields a row for each labelled photo; `group` is one of the seven races."""
        tables = {part: f"fairface_label_{part}.csv" for part in PARTS}
        there = {part: name for part, name in tables.items() if self.store.exists(name)}
        if not there:
            raise self.lay_out_error(f"no {' or '.join(tables.values())}")
        for part, name in there.items():
            missing = sorted(set(COLUMNS) - set(self.csv_columns(name)))
            if missing:
                raise self.lay_out_error(f"{name} lacks the columns {', '.join(missing)}")
            for line, row in self.csv_rows(name):
                if row["race"] not in self.config.groups:
                    known = ", ".join(self.config.groups)
                    raise ValueError(f"{name}, line {line}: race {row['race']!r} is not in groups ({known})")
                yield {
                    "file": row["file"],
                    "part": part,
                    "age": row["age"],
                    "gender": row["gender"].lower(),
                    "group": row["race"],
                    "race": row["race"],
                }
