"""A run's folder: what to say when it is full, read-only or gone, and how it is taken up again.

Ray keeps a list of its checkpoints in a file that it does not write atomically, and refuses to start when the
list is damaged or names a checkpoint that is gone. `mend_store` looks before Ray does.
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

from components.training.checkpoint import check_checkpoint, last_whole
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
        number = _number(error)
        if number not in LASTING:
            raise
        raise StoreFault(
            f"{what} could not be written to {folder}: {os.strerror(number)}"
            f"{_free_space(folder)}; mend that, and the same run name goes on from the last checkpoint"
        ) from error


def _number(error: OSError | SafetensorError) -> int:
    """The error number; safetensors ("code: 28") and shutil ("[Errno 28]") have it in the message alone."""
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
    """Takes away what a failed save left half done, and Ray's list if Ray would refuse it.

    Args:
        checkpoints: Folder of the run's checkpoints; need not exist.

    Returns:
        The checkpoint to resume from where Ray's list had to go, None where the list serves.

    Raises:
        ValueError: There were checkpoints, and none of them is whole.
    """
    listing = checkpoints / RAY_LIST
    listed = _listed(listing)
    found = sorted(path for path in checkpoints.glob("checkpoint_*") if path.is_dir())
    if listed is not None and all((checkpoints / name).is_dir() for name in listed):
        for path in found:
            if path.name not in listed:
                _remove_half_done(path)
        return None
    lost = listing.exists()
    if lost:
        logger.warning("the list of checkpoints in %s is damaged: it is made anew", checkpoints)
        listing.unlink()
    else:  # the first save failed: there may be nothing but its rest
        for path in found:
            _remove_half_done(path)
        found = [path for path in found if path.is_dir()]
    return last_whole(found[-1]) if found else None


def _remove_half_done(folder: Path) -> None:
    try:
        check_checkpoint(folder)
    except ValueError as error:
        logger.warning("%s; a save that failed left it, it is removed", error)
        shutil.rmtree(folder, ignore_errors=True)


def _listed(listing: Path) -> set[str] | None:
    """Names of the checkpoints that Ray knows; None if its list is missing or damaged."""
    try:
        values = json.loads(listing.read_text(encoding="utf-8"))
        return {result["checkpoint_dir_name"] for result in values["checkpoint_results"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _free_space(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 2**20:.0f} MB free)"
    except OSError:
        return ""
