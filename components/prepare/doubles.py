"""Photos that repeat an earlier one: the very bytes under another name, or the same picture saved anew.

The perceptual hash is the sign of the 256 lowest frequencies of the grey picture at 64 x 64 (pHash, with more
bits). Smaller, recompressed or slightly brighter copies differ in a few bits; other pictures in about half.
"""

from typing import Any

import cv2
import numpy as np

from components.prepare.sources import Catalogue

Row = dict[str, Any]
SIDE, LOW = 64, 16  # pixels of the shrunken picture, frequencies a side
WORDS = LOW * LOW // 64


def picture_hash(image_uint8: np.ndarray) -> str:
    """Returns the perceptual hash of an RGB photo (H, W, 3) as 64 hex digits."""
    grey = cv2.cvtColor(image_uint8, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:LOW, :LOW].ravel()
    return np.packbits(low > np.median(low[1:])).tobytes().hex()


class Doubles:
    """What was kept so far, and whether a photo repeats it.

    Checksums and names are in the catalogue. With `near_bits` memory holds 32 bytes a kept photo, and one
    comparison costs a scan over them: 1 ms at 100,000.

    Args:
        catalogue: Knows the photos of earlier runs, as the journal told it.
        near_bits: Hashes that differ in at most so many bits mean the same picture; None: exact copies only.
    """

    def __init__(self, catalogue: Catalogue, near_bits: int | None) -> None:
        self._db, self._near_bits = catalogue.db, near_bits
        self._count = 0
        self._hashes = np.zeros((1024, WORDS), np.uint64)
        self._last: tuple[str, Row | None] = ("", None)
        kept = self._db.execute(
            "SELECT file, sha256, picture_hash FROM done WHERE samples > 0 ORDER BY shard, position"
        )
        for file, sha256, picture in kept:
            self._add(file, sha256, picture)
        self._db.commit()

    def judge(self, row: Row) -> Row:
        """Turns a sample of a photo that repeats an earlier one into a reject that names it."""
        if row["reason"] is not None:
            return row
        if row["file"] != self._last[0]:  # all faces of a photo share one verdict
            verdict = self._verdict(row)
            if verdict is None:
                self._add(row["file"], row["sha256"], row["picture_hash"])
            self._last = (row["file"], verdict)
        return row | (self._last[1] or {})

    def _verdict(self, row: Row) -> Row | None:
        found = self._db.execute("SELECT file FROM originals WHERE sha256 = ?", (row["sha256"],)).fetchone()
        if found is not None:
            return {"reason": "duplicate", "detail": f"the same bytes as {found[0]}", "repeats": found[0]}
        if self._near_bits is None or not row["picture_hash"] or not self._count:
            return None
        number, bits = self._nearest(_words(row["picture_hash"]))
        if bits > self._near_bits:
            return None
        (first,) = self._db.execute("SELECT file FROM pictures WHERE number = ?", (number,)).fetchone()
        detail = f"the same picture as {first}: {bits} of {LOW * LOW} bits differ"
        return {"reason": "near_duplicate", "detail": detail, "repeats": first}

    def _nearest(self, words: np.ndarray) -> tuple[int, int]:
        """Returns (number, bits that differ) of the nearest kept photo, the first of equals."""
        kept = self._hashes[: self._count]
        bits = np.bitwise_count(kept ^ words).sum(axis=1, dtype=np.int64)
        number = int(bits.argmin())
        return number, int(bits[number])

    def _add(self, file: str, sha256: str, picture: str | None) -> None:
        self._db.execute("INSERT OR IGNORE INTO originals VALUES (?, ?)", (sha256, file))
        if self._near_bits is None or not picture:
            return
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[self._count] = _words(picture)
        self._db.execute("INSERT INTO pictures VALUES (?, ?)", (self._count, file))
        self._count += 1


def _words(picture: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(picture), np.uint64)
