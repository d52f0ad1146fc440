"""Where the photos of a batch may lie (below one folder, or below allowed URLs), and reading them."""

from collections.abc import Sequence
from pathlib import Path

import fsspec

from components.core import inside

NAME = 255
"""Characters of the longest name."""


def find_photo(photo: str, root: str, allowed_urls: Sequence[str]) -> str:
    """Returns the path or URL of a photo that a request names.

    Args:
        photo: Relative to the root, or a URL.
        root: Folder or URL that relative names are below.
        allowed_urls: Prefixes of URLs that may be named; without one, none may.

    Raises:
        ValueError: It leads out of the root, or is a URL that nothing allows.
    """
    if "://" in photo:
        prefixes = [f"{prefix.rstrip('/')}/" for prefix in allowed_urls]
        if ".." in photo.split("/") or not any(photo.startswith(prefix) for prefix in prefixes):
            allowed = ", ".join(prefixes) or "none (setting batch.photo_urls)"
            raise ValueError(f"photo {_shown(photo)}: URLs that may be read start with: {allowed}")
        return photo
    if "://" in root:
        if photo.startswith("/") or ".." in photo.split("/"):
            raise ValueError(f"{_shown(photo)} leads out of {root}: names must stay inside the folder")
        return f"{root.rstrip('/')}/{photo}"
    try:
        path = inside(Path(root), photo) if len(photo) <= NAME else None
        found = path is not None and path.is_file()
    except OSError:  # a name that no file can have
        found = False
    if not found:
        raise ValueError(f"no photo {_shown(photo)} in {root}")
    return str(path)


def _shown(photo: str) -> str:
    """A name, so that it can be found; what is too long for one may be the photo itself."""
    return repr(photo) if len(photo) <= NAME else f"of that name ({len(photo)} characters: not a file's name)"


def photo_bytes(place: str, max_mb: int) -> bytes:
    """Returns the file of a photo.

    Raises:
        ValueError: There is none, it is too large, or the store does not answer.
    """
    fs, path = fsspec.url_to_fs(place)
    try:
        size = int(fs.info(path).get("size") or 0)
        if size > max_mb * 2**20:
            raise ValueError(f"the photo {Path(path).name} has {size / 2**20:.0f} MB; allowed: {max_mb}")
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        raise ValueError(f"no photo at {place}") from None
    except OSError as error:
        raise ValueError(f"the photo {place} cannot be read: {type(error).__name__}") from error
