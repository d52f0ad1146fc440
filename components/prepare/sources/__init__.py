"""Sets of photos behind one interface: a `Library`, which lists into a `Catalogue` and reads photos."""

from components.prepare.sources.catalogue import Catalogue
from components.prepare.sources.photo_library import READERS, Library, read_folder, sources_digest
from components.prepare.sources.record import SPLITS, PhotoRecord, split_of
from components.prepare.sources.store import OutsideError, digest_of

__all__ = [
    "READERS",
    "SPLITS",
    "Catalogue",
    "Library",
    "OutsideError",
    "PhotoRecord",
    "digest_of",
    "read_folder",
    "sources_digest",
    "split_of",
]
