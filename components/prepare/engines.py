"""Who does the work of a plan: this process alone, or the actors of one Ray Dataset. Both give the same rows.

    plan (catalogue) -> slices -> FaceStage actors -> EncodeStage actors -> rows, in order

A slice is a fixed part of a shard and every network call stays within it, so that neither the number of
workers nor a restart changes a byte. To Ray a slice is one row, packed: it never splits one or joins two.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from components.core import RuntimeConfig, ray_session
from components.prepare.plan import Plan, read_shard
from components.prepare.sources import Library
from components.prepare.spec import PrepareSpec
from components.prepare.stages import EncodeStage, FaceStage, Row

if TYPE_CHECKING:
    import ray.data

    from components.model import ModelConfig

PACKED = "slice"
IN_FLIGHT = 2  # slices that an actor has: one in work, one waiting
AHEAD = 3  # shards that are begun and not yet finished


class Engine(Protocol):
    """Does the work that takes time."""

    def rows(self, plan: Plan, spec: PrepareSpec, model: "ModelConfig", library: Library) -> Iterator[Row]:
        """Yields rows of `SAMPLE_SCHEMA` for all photos of the plan, in its order."""

    def embeddings(self, files: list[str], spec: PrepareSpec, library: Library) -> Iterable[pa.Table]:
        """Yields tables (file, embedding) for the files."""


class PlainEngine:
    """A loop in this process: what Ray's pipeline is measured and tested against."""

    def rows(self, plan: Plan, spec: PrepareSpec, model: "ModelConfig", library: Library) -> Iterator[Row]:
        """Yields rows of `SAMPLE_SCHEMA` for all photos of the plan, in its order."""
        faces, encode = FaceStage(spec, library), EncodeStage(spec, model)
        for photos in plan.slices(spec.prepare.batch_size):
            yield from encode(faces(photos)).to_pylist()

    def embeddings(self, files: list[str], spec: PrepareSpec, library: Library) -> Iterable[pa.Table]:
        """Yields tables (file, embedding) for the files."""
        from components.prepare.people import EmbedStage

        return map(EmbedStage(spec, library), _file_slices(files, spec.prepare.batch_size))


class RayEngine:
    """Actors of Ray, which is started when there is something to do; use as a context manager.

    Args:
        runtime: Where Ray is, and which device encodes.
    """

    def __init__(self, runtime: RuntimeConfig) -> None:
        self.runtime, self._session = runtime, ExitStack()

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, *exc: object) -> None:
        self._session.close()

    def rows(self, plan: Plan, spec: PrepareSpec, model: "ModelConfig", library: Library) -> Iterator[Row]:
        """Yields rows of `SAMPLE_SCHEMA` for all photos of the plan, holding one slice at a time."""
        self._start()
        dataset = ray_dataset(plan, spec, model, library, encode_device(self.runtime))
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            yield from unpack(batch).to_pylist()

    def embeddings(self, files: list[str], spec: PrepareSpec, library: Library) -> Iterable[pa.Table]:
        """Yields tables (file, embedding) for the files."""
        import ray
        from ray.data import ActorPoolStrategy

        from components.prepare.people import EmbedStage

        self._start()
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        slices = list(_file_slices(files, spec.prepare.batch_size))
        dataset = ray.data.from_arrow(slices).map_batches(
            EmbedStage,
            fn_constructor_kwargs={"spec": spec, "library": library},
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(spec.prepare.face_workers or cpus, len(slices))),
            num_cpus=1,
        )
        dataset.context.enable_progress_bars = False
        return dataset.iter_batches(batch_size=None, batch_format="pyarrow")

    def _start(self) -> None:
        self._session.enter_context(ray_session(self.runtime))


class PackedFaceStage(FaceStage):
    """`FaceStage` as Ray calls it."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turns a packed slice into a packed slice."""
        return pack(super().__call__(unpack(batch)))


class PackedEncodeStage(EncodeStage):
    """`EncodeStage` as Ray calls it."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turns a packed slice into a packed slice."""
        return pack(super().__call__(unpack(batch)))


def pack(table: pa.Table) -> pa.Table:
    """Returns a table of one row that holds the table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    whole = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), 1, [None, pa.array([0, sink.tell()], pa.int64()).buffers()[1], sink.getvalue()]
    )
    return pa.table({PACKED: whole})


def unpack(batch: pa.Table) -> pa.Table:
    """Returns the table that a row of `pack` holds, without a copy."""
    (row,) = batch[PACKED]
    return pa.ipc.open_stream(row.as_buffer()).read_all()


def encode_device(runtime: RuntimeConfig) -> str:
    """Returns "cpu" or "cuda": what the cluster has, not what this process sees. Needs a running Ray."""
    if runtime.device != "auto":
        return runtime.device.split(":")[0]
    import ray

    return "cuda" if ray.cluster_resources().get("GPU", 0) else "cpu"


def ray_dataset(
    plan: Plan, spec: PrepareSpec, model: "ModelConfig", library: Library, device: str
) -> "ray.data.Dataset":
    """Describes the work as one Dataset; nothing runs yet. Blocks are slices, and keep their order."""
    import ray
    from ray.data import ActorPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    cpus, gpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("CPU", "GPU"))
    config, on_gpu = spec.prepare, device != "cpu"
    face_workers = config.face_workers or max(1, cpus if on_gpu else cpus // 2)
    encode_workers = config.encode_workers or (max(1, gpus) if on_gpu else max(1, cpus // 2))
    share = min(1.0, cpus / (face_workers + encode_workers))
    photos = ray.data.read_datasource(
        slices_source(plan, config.batch_size),
        override_num_blocks=len(plan.names),
        # The catalogue is a file of this machine, and reading it takes no core.
        num_cpus=0,
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
        concurrency=1,
    )
    photos.context.target_max_block_size = 1  # a packed slice is a block
    photos.context.execution_options.preserve_order = True
    photos.context.enable_progress_bars = False
    faces = photos.map_batches(
        PackedFaceStage,
        fn_constructor_kwargs={"spec": spec, "library": library},
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=face_workers, max_tasks_in_flight_per_actor=IN_FLIGHT),
        num_cpus=share,
        num_gpus=config.face_gpus,
    )
    return faces.map_batches(
        PackedEncodeStage,
        fn_constructor_kwargs={"spec": spec, "model": model, "device": device},
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=encode_workers, max_tasks_in_flight_per_actor=IN_FLIGHT),
        num_cpus=share,
        num_gpus=1 if on_gpu else 0,
    )


def slices_source(plan: Plan, size: int) -> Any:
    """Returns the plan as a source of Ray Data: a task a shard, which yields its slices, packed."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    assert plan.catalogue.path is not None, "other processes read the plan: it must be a file"
    path = plan.catalogue.path.absolute()

    def task(number: int, name: str) -> ReadTask:
        after = plan.names[number - AHEAD] if number >= AHEAD else None
        read: Callable[[], Iterable[pa.Table]] = partial(_packed_shard, path, number, name, size, after)
        return ReadTask(read, BlockMetadata(None, None, None, None))

    class Slices(Datasource):
        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
            return [task(number, name) for number, name in enumerate(plan.names)]

    return Slices()


def _packed_shard(*words: Any) -> Iterator[pa.Table]:
    return map(pack, read_shard(*words))


def _file_slices(files: list[str], size: int) -> Iterator[pa.Table]:
    return (pa.table({"file": files[i : i + size]}) for i in range(0, len(files), size))
