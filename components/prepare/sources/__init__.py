"""Sets of photos behind one interface: `Library(config, folder).records()`, `.read(file)`, `.state(file)`."""

from components.prepare.sources.photo_library import READERS, Library, read_folder, sources_digest
from components.prepare.sources.record import SPLITS, PhotoRecord, in_plan_order, split_of
from components.prepare.sources.store import OutsideError

__all__ = [
    "READERS",
    "SPLITS",
    "Library",
    "OutsideError",
    "PhotoRecord",
    "in_plan_order",
    "read_folder",
    "sources_digest",
    "split_of",
]
