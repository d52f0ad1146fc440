"""A run's folder: what to say when it is full, read-only or gone, and how it is taken up again.

Ray keeps a list of its checkpoints in a file that it writes seconds after the checkpoint, not atomically, and
it refuses to start when the list is damaged or names a checkpoint that is gone. `mend_store` looks first.
"""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from components.training.checkpoint import FILES_FILE, check_checkpoint, last_whole
from components.training.job import RUN_FILE

logger = logging.getLogger(__name__)
RAY_LIST = "checkpoint_manager_snapshot.json"
# What a restart does not mend. Others (a network store that stutters) are left to Ray's restarts.
LASTING = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR,
}  # fmt: skip


class StoreFault(RuntimeError):
    """The run's folder cannot be written; what has been kept in it is left as it is."""


@contextmanager
def storing(what: str, folder: Path) -> Iterator[None]:
    """Puts a lasting fault of the file system into words.

    Args:
        what: What is written, for the message.
        folder: The run's folder.

    Raises:
        StoreFault: The disk is full, or the folder is unwritable or gone.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        fault = store_fault(error, what, folder)
        if fault is None:
            raise
        raise fault from error


def store_fault(error: BaseException, what: str, folder: Path) -> StoreFault | None:
    """Returns a lasting fault of the file system in words; None if an error is something else."""
    number = _number(error)
    if number not in LASTING:
        return None
    return StoreFault(
        f"{what} could not be written to {folder}: {os.strerror(number)}"
        f"{_free_space(folder)}; mend that, and the same run name goes on from the last checkpoint"
    )


def _number(error: BaseException) -> int:
    """The error number; some say it in the message alone: safetensors ("code: 28"), Ray ("[Errno 28]")."""
    number = getattr(error, "errno", None)
    found = re.search(r"(?:code: |\[Errno )(\d+)", str(error))
    return int(number or (found[1] if found else 0))


def check_store(folder: Path) -> None:
    """Raises a StoreFault if the run's folder is gone, e.g. with its disk: nothing may grow in its place."""
    if not (folder / RUN_FILE).is_file():
        raise StoreFault(
            f"the run's folder {folder} has vanished ({RUN_FILE} is gone); bring it back, and the same run "
            "name goes on from its last checkpoint"
        )


def replace_folder(new: Path, old: Path) -> None:
    """Puts a copy of `new` in the place of `old`, which is whole at every moment but that of the exchange."""
    arriving, leaving = (old.with_name(f".{old.name}.{word}") for word in ("new", "old"))
    for path in (arriving, leaving):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(new, arriving)
    if old.exists():
        old.rename(leaving)
    arriving.rename(old)
    shutil.rmtree(leaving, ignore_errors=True)


def mend_store(checkpoints: Path) -> Path | None:
    """Takes away what a failed save left half done, and sets Ray's list aside if Ray would refuse it.

    Args:
        checkpoints: Folder of the run's checkpoints; need not exist.

    Returns:
        The newest whole checkpoint where Ray's list does not have it: the list is damaged, or its writer died
        before it noted the last. None where the list serves.

    Raises:
        ValueError: There were checkpoints, and none of them is whole.
    """
    listing = checkpoints / RAY_LIST
    listed = _listed(listing)
    serves = listed is not None and all((checkpoints / name).is_dir() for name in listed)
    damaged = listing.exists() and not serves
    for path in _checkpoints(checkpoints):
        if not damaged and path.name not in (listed or ()):
            _remove_half_done(path)
    found = _checkpoints(checkpoints)
    has_last = listed and serves and (not found or found[-1].name <= max(listed))
    newest = last_whole(found[-1]) if found and not has_last else None
    if damaged:
        set_list_aside(checkpoints)
    return newest


def newest_unlisted(url: str) -> str | None:
    """As `mend_store`, for checkpoints in an object store, where each file is whole or absent.

    Args:
        url: Of the run's checkpoints; need not exist.

    Returns:
        Name of the newest whole checkpoint where Ray's list does not have it, else None.
    """
    import fsspec

    filesystem, place = fsspec.url_to_fs(url, use_listings_cache=False)
    files: dict[str, set[str]] = {}
    for path in filesystem.find(place):
        folder, _, name = path.removeprefix(place).strip("/").rpartition("/")
        files.setdefault(folder, set()).add(name)
    known = _names(filesystem.cat_file(f"{place}/{RAY_LIST}")) if RAY_LIST in files.get("", ()) else set()
    whole = set()
    for folder in files.keys() - known - {""}:
        listing = f"{place}/{folder}/{FILES_FILE}"
        if FILES_FILE in files[folder] and json.loads(filesystem.cat_file(listing)).keys() <= files[folder]:
            whole.add(folder)
        else:
            logger.warning("%s: a save that was cut short left it, it is removed", f"{url}/{folder}")
            filesystem.rm(f"{place}/{folder}", recursive=True)
    newest = max(whole, default="")
    return newest if newest > max(known, default="") else None


def set_list_aside(checkpoints: Path) -> None:
    """Keeps Ray's list under another name; Ray begins a new one."""
    logger.warning("the list of checkpoints in %s is damaged: it is made anew", checkpoints)
    (checkpoints / RAY_LIST).replace(checkpoints / f"{RAY_LIST}.damaged")


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("checkpoint_*") if path.is_dir())


def _remove_half_done(folder: Path) -> None:
    try:
        check_checkpoint(folder)
    except ValueError as error:
        logger.warning("%s; a save that failed left it, it is removed", error)
        shutil.rmtree(folder, ignore_errors=True)


def _listed(listing: Path) -> set[str] | None:
    """Names of the checkpoints that Ray knows; None if its list is missing or damaged."""
    try:
        return _names(listing.read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _names(listing: bytes) -> set[str]:
    return {result["checkpoint_dir_name"] for result in json.loads(listing)["checkpoint_results"]}


def _free_space(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MB free)"
    except OSError:
        return ""
