"""Stages on nodes that share nothing but a store: what a stage needs is brought, what it made is sent.

With `store: s3://bucket/runs` the run root is a folder of each node's own, and the store holds the same tree.
A stage begins by bringing the records before it and the folders that they describe, and ends by sending its
own folder, then its record: who sees a record sees all that it speaks of. Shards are read where they lie,
checkpoints go straight to the store. Without a store nothing here does anything.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from components.core import ShardManifest, SharedStore
from flows.config import PipelineConfig, shared_store
from flows.environment import PROJECT

PEOPLE = "people"  # below the root: kept cards and the audit log


def store_of(config: PipelineConfig) -> SharedStore | None:
    """Returns the store that stands for the run root, None where the root itself is shared."""
    return shared_store(config.store, config.root)


def bring_records(config: PipelineConfig, records: Path) -> None:
    """Brings the records of earlier stages."""
    if store := store_of(config):
        store.fetch_files(records, ".json")


def bring_file(config: PipelineConfig, file: Path) -> None:
    """Brings one file in its newest form, if the store holds it."""
    if store := store_of(config):
        store.fetch_file(file)


def bring_folder(config: PipelineConfig, folder: Path) -> None:
    """Brings what the store holds of a folder."""
    if store := store_of(config):
        store.fetch(folder)


def send_file(config: PipelineConfig, file: Path) -> None:
    """Puts one file into the store."""
    if store := store_of(config):
        store.send_file(file)


def there(config: PipelineConfig, path: Path) -> bool:
    """Tells whether a stage's result exists: for all nodes in the store, else here."""
    store = store_of(config)
    return path.exists() if store is None else store.has(path)


@contextmanager
def shared(config: PipelineConfig, own: list[Path], leave: tuple[str, ...] = ()) -> Iterator[None]:
    """Brings a stage's own folders before the block and sends them after it, also when the block fails.

    What a failed or cancelled stage has done so far is what the next try goes on from, on whatever node.

    Args:
        config: The run's config.
        own: Folders that the stage writes to.
        leave: Names directly below them that are not sent.
    """
    store = store_of(config)
    if store is None:
        yield
        return
    for folder in own:
        store.fetch(folder, leave)
    try:
        yield
    finally:
        for folder in own:
            store.send(folder, leave)


@contextmanager
def at_hand(store: str | None, root: str, *folders: str, files: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yields a run root: the one named, or a copy of parts of the store's that is sent back after the block.

    Args:
        store: URL of the store that stands for a root; None takes the root itself.
        root: Folder of all runs.
        *folders: Which folders to copy: names or patterns below the root.
        files: Which files beside them.
    """
    if store is None:
        yield PROJECT / root
        return
    with TemporaryDirectory(prefix="photoverse-store-") as name:
        copy = SharedStore(url=store, root=str(Path(name).resolve()))
        found = {at for pattern in folders for at in copy.folders(pattern)} | {Path(copy.root) / PEOPLE}
        single = [at for pattern in files for at in copy.files(pattern)]
        for folder in sorted(found):
            copy.fetch(folder)
        for file in single:
            copy.fetch_file(file)
        yield Path(copy.root)
        for folder in sorted(found):
            copy.send(folder, leave=[file.name for file in single if file.parent == folder])
        for file in single:
            copy.send_file(file)


def read_in_place(config: PipelineConfig, manifest: ShardManifest) -> ShardManifest:
    """Returns the manifest of a shard set with its place in the store: its tars are read from there."""
    store = store_of(config)
    if store is None:
        return manifest
    return manifest.model_copy(update={"folder": store.url_of(PROJECT / manifest.folder)})


def place_of(config: PipelineConfig, folder: Path) -> Path | str:
    """Returns the URL of a folder that workers on other nodes read too, where there is a store."""
    store = store_of(config)
    return folder if store is None else store.url_of(folder)
