"""The work of each stage: (config, own folder, folder of records) -> record.

Here each room gets the parts of the config that it needs and the records of the stages before it. The rooms'
code is imported only when the stage runs.
"""

import shutil
from pathlib import Path
from typing import Any

from components.core import Checkpoint, EvaluationReport, PhotoFolder, Promotion, Record, ShardManifest
from flows.config import PipelineConfig
from flows.environment import PROJECT
from flows.stage_store import PEOPLE, place_of, read_in_place, send_file, store_of


def draw_portraits(config: PipelineConfig, folder: Path, records: Path) -> Record:
    """Draws the people of the portrait world."""
    from components.portraits import draw_people

    return draw_people(config=config.portraits, runtime=config.runtime, folder=folder)


def prepare_shards(config: PipelineConfig, folder: Path, records: Path) -> Record:
    """Photos to shards; without people who were forgotten, even where their photos still lie."""
    from components.inference import CardStore
    from components.prepare import prepare

    return prepare(
        config=config.prepare,
        face=config.face,
        model=config.model,
        runtime=config.runtime,
        source_folder=photo_folder(config, records) if config.prepare.needs_folder else None,
        folder=folder,
        without=CardStore(people_folder(config)).forgotten(),
    )


def train_adapter(config: PipelineConfig, folder: Path, records: Path) -> Record:
    """Shards to an adapter."""
    from components.training import train

    return train(
        config=config.train,
        model=config.model,
        face=config.face,
        runtime=config.runtime,
        tracking=config.tracking,
        manifest=read_in_place(config, read_record(ShardManifest, records)),
        folder=folder,
        run_name=config.name,
        store=store_of(config),
    )


def evaluate_adapter(config: PipelineConfig, folder: Path, records: Path) -> Record:
    """Measures the adapter on held-out people."""
    from components.evaluation import evaluate

    return evaluate(
        config=config.evaluation,
        model=config.model,
        face=config.face,
        runtime=config.runtime,
        tracking=config.tracking,
        manifest=read_in_place(config, read_record(ShardManifest, records)),
        checkpoint=read_record(Checkpoint, records),
        folder=folder,
    )


def promote_model(
    config: PipelineConfig,
    folder: Path,
    records: Path,
    *,
    dry_run: bool = False,
    by_hand: str | None = None,
) -> Promotion:
    """Lets the gate decide and registers the model."""
    from components.registry import promote

    return promote(
        config=config.registry,
        model=config.model,
        face=config.face,
        runtime=config.runtime,
        tracking=config.tracking,
        report=read_record(EvaluationReport, records),
        checkpoint=read_record(Checkpoint, records),
        manifest=read_record(ShardManifest, records),
        dry_run=dry_run,
        by_hand=by_hand,
    )


def personalize_requests(config: PipelineConfig, folder: Path, records: Path) -> Record:
    """Looks the model up once, so that an alias that moves in the night does not split a batch."""
    from components.face import FaceConfig
    from components.inference import personalize_batch
    from components.model import ModelConfig
    from components.registry import resolve

    requests = request_place(config)
    found = resolve(config.tracking, config.registry.model_name, model_uri(config, records))
    return personalize_batch(
        config=config.batch,
        face=FaceConfig.parse(found.face, source=found.model_uri),
        model=ModelConfig.parse(found.model, source=found.model_uri),
        runtime=config.runtime,
        adapter=_for_all_nodes(config, found.adapter, folder),
        model_uri=found.model_uri,
        requests=requests,
        folder=folder,
        people=people_folder(config),
        store=store_of(config),
    )


def _for_all_nodes(config: PipelineConfig, adapter: Path, folder: Path) -> Path:
    """Returns the adapter, which the registry brought to this node alone, where workers elsewhere find it."""
    if store_of(config) is None:
        return adapter
    place = folder / "model" / adapter.name
    place.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(adapter.with_suffix(suffix), place.with_suffix(suffix))
        send_file(config, place.with_suffix(suffix))
    return place


def read_record(kind: type[Any], records: Path) -> Any:
    """Returns the record of an earlier stage from its folder."""
    return kind.load(records / f"{kind.stage}.json")


def photo_folder(config: PipelineConfig, records: Path) -> Path | str:
    """Returns the folder of photos to prepare, or its URL: the user's, or the drawn people."""
    if config.photos is None:
        return place_of(config, Path(read_record(PhotoFolder, records).folder))
    if "://" in config.photos:
        return config.photos
    folder = PROJECT / config.photos
    if not folder.is_dir():
        raise ValueError(f"photos: there is no folder {folder}")
    return folder


def request_place(config: PipelineConfig) -> str:
    """Returns the file or inbox of requests, local ones absolute, or says that none is set."""
    if config.requests is None:
        raise ValueError("requests: neither a file (JSONL, CSV, Parquet) nor an inbox of such files is set")
    if "://" in config.requests:
        return config.requests
    place = PROJECT / config.requests
    if not place.suffix:  # an inbox: files come when they come
        place.mkdir(parents=True, exist_ok=True)
    return str(place)


def people_folder(config: PipelineConfig) -> Path:
    """Returns the folder of the kept cards and the audit log, which all runs of a root share."""
    return PROJECT / config.root / PEOPLE


def model_uri(config: PipelineConfig, records: Path) -> str:
    """Returns the model to personalize with: the one asked for, the run's own, else the champion."""
    if config.model_uri:
        return config.model_uri
    own = records / "promote.json"
    if own.is_file() and (uri := Promotion.load(own).model_uri):
        return uri
    return f"models:/{config.registry.model_name}@champion"
