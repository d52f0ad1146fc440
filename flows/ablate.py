"""photoverse/ablate: the method with one part left out at a time, trained and measured alike, in one table.

Each variant is a run of its own, `NAME.VARIANT`, beside the folder of the ablation, `NAME`: its records say
what is done, so that a second call trains nothing again. The data are prepared once for all.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prefect import allow_failure, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from components.core import Ablation, Checkpoint, EvaluationReport, deep_merge
from components.evaluation import VARIANTS, write_ablation
from flows.config import PipelineConfig, open_run, resolve
from flows.environment import PROJECT
from flows.pipeline import RunnerName, data_stages, named, with_runner
from flows.stage_store import send_file
from flows.tasks import RETRIES, run_stage, stage

Variants = dict[str, tuple[PipelineConfig, Path]]


@flow(name="photoverse", flow_run_name=named("ablate"))
def ablate(
    profile: str = "portraits",
    name: str | None = None,
    variants: list[str] | None = None,
    overrides: dict[str, Any] | None = None,
    resume: bool = False,
    side_by_side: int | None = None,
    runner: RunnerName = "local",
    ray_address: str | None = None,
) -> dict[str, Any]:
    """Trains and measures the full method and its variants, and writes one table with intervals and verdicts.

    Args:
        profile: Name of a profile in infra/profiles, or the path of a YAML file.
        name: Name of the ablation; empty: made from profile and time.
        variants: Which variants, beside "full"; empty: those of the profile, which are all by default.
        overrides: Settings to lay over the profile and its `ablation.settings`, for all variants alike.
        resume: Go on with an ablation that exists: finished variants are kept.
        side_by_side: Variants that run at once; empty: one on this machine, all on a cluster, which starts
            each as soon as it has room.
        runner: "local" runs stages as processes here, "ray-job" on the cluster at ray_address.
        ray_address: Job server of the Ray cluster.
    """
    config = ablation_config(profile, name, variants, with_runner(overrides, runner, ray_address))
    config_file = open_run(config, resume=resume)
    for data in data_stages(config):
        stage(data, config, config_file)
    runs = open_variants(config, profile, with_runner(overrides, runner, ray_address))
    failed = run_variants(runs, side_by_side or (1 if config.runner.kind == "local" else len(runs)))
    record = write_table(config, runs, failed, profile)
    record.save(config_file.parent / "records" / "ablate.json")
    show(record, runs)
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(runs)} variants failed: {failed}; the table has the others"
        )
    return record.model_dump(mode="json")


def ablation_config(
    profile: str, name: str | None, variants: list[str] | None, overrides: Mapping[str, Any]
) -> PipelineConfig:
    """Returns the settings that all variants share: the profile, its `ablation.settings`, then overrides.

    Raises:
        ValueError: As `flows.config.resolve`; also for a variant that does not exist.
    """
    asked = {"ablation": {"variants": ["full", *variants]}} if variants else {}
    base = resolve(profile, deep_merge(overrides, asked), name=name)
    settings = deep_merge(base.ablation.settings, deep_merge(overrides, asked))
    return resolve(profile, settings, name=base.name)


def open_variants(config: PipelineConfig, profile: str, overrides: Mapping[str, Any]) -> Variants:
    """Makes the run of each variant, with the records of the data that all share."""
    runs: Variants = {}
    shared = deep_merge(config.ablation.settings, overrides)
    for variant in config.ablation.variants:
        settings = deep_merge(shared, VARIANTS[variant].overrides)
        own = resolve(profile, settings, name=f"{config.name}.{variant}")
        file = open_run(own, resume=True)
        for data in data_stages(config):
            record = PROJECT / config.folder / "records" / f"{data}.json"
            copy = file.parent / "records" / record.name
            shutil.copyfile(record, copy)
            send_file(own, copy)
        runs[variant] = (own, file)
    return runs


def run_variants(runs: Variants, side_by_side: int) -> list[str]:
    """Trains and measures each variant; returns those that failed: one failure never ends the others."""
    if side_by_side == 1:
        return [variant for variant, run in runs.items() if not _one_after_the_other(variant, *run)]
    lanes: list[Any] = [None] * side_by_side
    measured = {}
    for number, (variant, (config, file)) in enumerate(runs.items()):
        before = lanes[number % side_by_side]
        trained = _task("train", variant).submit(
            "train", config, file, f"train-{variant}", wait_for=[allow_failure(before)] if before else []
        )
        measured[variant] = _task("evaluate", variant).submit(
            "evaluate", config, file, f"evaluate-{variant}", wait_for=[trained]
        )
        lanes[number % side_by_side] = measured[variant]
    return [variant for variant, future in measured.items() if not _ended_well(future)]


def _one_after_the_other(variant: str, config: PipelineConfig, file: Path) -> bool:
    for name in ("train", "evaluate"):
        state = _task(name, variant)(name, config, file, f"{name}-{variant}", return_state=True)
        if not state.is_completed():
            get_run_logger().error("%s of variant %s: %s", name, variant, state.message)
            return False
    return True


def _ended_well(future: Any) -> bool:
    future.wait()
    return bool(future.state.is_completed())


def _task(name: str, variant: str) -> Any:
    return run_stage.with_options(name=name, task_run_name=f"{name} {variant}", retries=RETRIES[name])


def write_table(config: PipelineConfig, runs: Variants, failed: Iterable[str], profile: str) -> Ablation:
    """Writes the table of the variants that ended well into the ablation's folder."""
    lost = list(failed)
    finished = {}
    for variant, (_, file) in runs.items():
        records = file.parent / "records"
        if variant not in lost:
            finished[variant] = (
                Checkpoint.load(records / "train.json"), EvaluationReport.load(records / "evaluate.json"),
            )  # fmt: skip
    facts = {
        "profile": profile,
        "steps": config.train.steps,
        "training seed": config.runtime.seed,
        "people to learn from": config.portraits.train_people if config.photos is None else "see prepare",
    }
    return write_ablation(
        config.ablation, finished, PROJECT / config.folder / "ablation", missing=lost, facts=facts
    )


def show(record: Ablation, runs: Variants) -> None:
    """Puts the table and the links into Prefect's pages."""
    table = (Path(record.folder) / "ablation.md").read_text(encoding="utf-8")
    pages = [f"- [table with pictures]({Path(record.report_html).as_uri()}): `{record.report_html}`"]
    for variant, (_, file) in runs.items():
        evaluated = file.parent / "records" / "evaluate.json"
        if variant not in record.missing and evaluated.is_file():
            page = PROJECT / EvaluationReport.load(evaluated).report_html
            pages.append(f"- [{variant}]({page.as_uri()}): `{page}`")
    create_markdown_artifact(
        markdown="\n".join([table, "", *pages]), key="ablation", description="The table of the ablation"
    )
