"""CelebA-HQ as CelebAMask-HQ ships it (Lee et al., CVPR 2020).

    CelebA-HQ-img/0.jpg ... 29999.jpg
    CelebA-HQ-to-CelebA-mapping.txt             idx orig_idx orig_file
    CelebAMask-HQ-attribute-anno.txt            count; names; file and 40 times 1 or -1   (optional)
    CelebAMask-HQ-mask-anno/0/00000_skin.png    512 px a part, 2,000 photos a folder      (optional)
    identity_CelebA.txt                         from CelebA: orig_file person             (optional)

Without the identity file each photo counts as a person of its own. The attribute "Male" gives the gender,
the masks replace those of `face.mask`. Licence: non-commercial research and education only.
"""

from collections.abc import Iterator
from typing import ClassVar

from components.prepare.sources.base import Source
from components.prepare.sources.record import Row

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
MAPPING, IDENTITIES = "CelebA-HQ-to-CelebA-mapping.txt", "identity_CelebA.txt"
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"


class CelebAHQSource(Source):
    """CelebA-HQ with identities, attributes and masks where they are there."""

    licence: ClassVar[str] = "CelebAMask-HQ: non-commercial research and education"

    def rows(self) -> Iterator[Row]:
        """Yields a row for each photo of the mapping."""
        if not self.store.exists(MAPPING):
            raise self.lay_out_error(f"no {MAPPING}")
        people = dict(line.split()[:2] for line in self._lines(IDENTITIES))
        male = self._male()
        masks = self._masks() if self.store.exists(MASKS) else {}
        for line in self._lines(MAPPING)[1:]:
            number, _, original = line.split()[:3]
            file = f"{number}.jpg"
            row = {"file": f"{IMAGES}/{file}", "celeba_file": original}
            row["identity"] = people.get(original, "")
            row["gender"] = male.get(file, "")
            row["masks"] = "\n".join(sorted(masks.get(int(number), [])))
            yield row

    def _lines(self, name: str) -> list[str]:
        """Returns the lines of a text file that are not empty; none if there is no such file."""
        if not self.store.exists(name):
            return []
        return [line for line in self.store.read(name).decode("utf-8").splitlines() if line.strip()]

    def _male(self) -> dict[str, str]:
        """Returns file name -> "male" or "female"."""
        lines = self._lines(ATTRIBUTES)
        if not lines:
            return {}
        column = lines[1].split().index("Male") + 1
        words = (line.split() for line in lines[2:])
        return {parts[0]: "male" if parts[column] == "1" else "female" for parts in words}

    def _masks(self) -> dict[int, list[str]]:
        """Returns number of the photo -> its mask files, from one listing."""
        found: dict[int, list[str]] = {}
        for name in self.store.names():
            if name.startswith(f"{MASKS}/") and name.endswith(".png"):
                found.setdefault(int(name.rsplit("/", 1)[1].split("_")[0]), []).append(name)
        return found
