"""The `photoverse` command. Each subcommand imports what it needs when it runs: `--help` is quick."""

import argparse
import json
import logging
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from flows.dials import DIALS, parse_date
from flows.environment import PROJECT, prepare_environment

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
logger = logging.getLogger("photoverse")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns 0 well, 1 failed, 2 refused (the caller can mend it), 130 interrupted."""
    options = build_parser().parse_args(arguments)
    prepare_environment()
    try:
        return options.run(options) or OK
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where an error can be put in words
        return _report(error)


def _report(error: Exception) -> int:
    """Says what went wrong: one line for what the caller can mend, everything for what we must mend."""
    if _is_refusal(error):
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    from flows.runners import StageFailed

    if not isinstance(error, StageFailed):
        traceback.print_exception(error)
    print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    return FAILED


def _is_refusal(error: Exception) -> bool:
    """Whether our own code refused a value, rather than some library tripping over one of ours."""
    if not isinstance(error, ValueError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = Path(frame.f_code.co_filename)
    return any(file.is_relative_to(PROJECT / part) for part in ("components", "flows"))


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="photoverse", description="Puts a person, known from one photo, into any picture."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_train(commands)
    _add_personalize(commands)
    _add_export(commands)
    _add_stage(commands)
    _add_services(commands)
    _add_doctor(commands)
    _add_verify_shards(commands)
    _add_diverse_set(commands)
    return parser


def _add(commands: Any, name: str, run: Any, summary: str, details: str = "") -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=f"{summary}. {details}".strip())
    command.set_defaults(run=run)
    return command


def _add_run_options(command: argparse.ArgumentParser, name: str | None) -> None:
    command.add_argument(
        "--profile", default="portraits", help="name in infra/profiles or a YAML file (default: %(default)s)"
    )
    command.add_argument("--name", default=name, help="name of the run (default: %(default)s)")
    command.add_argument("--root", default="runs", help="folder of all runs (default: %(default)s)")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting over the profile's, e.g. --set train.steps=300; may be given several times",
    )  # fmt: skip


def _add_demo(commands: Any) -> None:
    details = "A second run keeps what is done; --fresh starts from nothing."
    command = _add(
        commands, "demo", _demo, "from drawn photos to personalized pictures on this machine", details
    )
    _add_run_options(command, "demo")
    command.add_argument("--fresh", action="store_true", help="remove the run and start anew")


def _demo(options: argparse.Namespace) -> int:
    from flows.demo import run_demo

    if options.fresh:
        _remove_run(options.root, options.name)
    run_demo(options.profile, options.name, options.root, parse_settings(options.settings))
    return OK


def _remove_run(root: str, name: str) -> None:
    import shutil

    from components.core import inside

    shutil.rmtree(inside(PROJECT / root, name), ignore_errors=True)


def _add_train(commands: Any) -> None:
    command = _add(
        commands, "train", _train, "photoverse/train in this terminal, without a server of your own"
    )
    _add_run_options(command, None)
    command.add_argument("--resume", action="store_true", help="go on with a run that exists")


def _train(options: argparse.Namespace) -> int:
    from flows.demo import quiet_prefect
    from flows.progress import listening
    from flows.terminal import Board

    quiet_prefect()
    from flows.pipeline import train

    settings = {"root": options.root} | parse_settings(options.settings)
    with Board() as board, listening(board):
        records = train(profile=options.profile, name=options.name, overrides=settings, resume=options.resume)
    print(json.dumps(records["promote"], indent=2))
    return OK


def _add_stage(commands: Any) -> None:
    details = (
        "Reads the records of earlier stages from the folder of --out. Does nothing if its work is done."
    )
    command = _add(commands, "stage", _stage, "run one stage in this process", details)
    command.add_argument("name", help="portraits, prepare, train, evaluate, promote or personalize")
    command.add_argument("--config", type=Path, required=True, help="the run's config.yaml")
    command.add_argument(
        "--out", type=Path, required=True, help="file of the record, e.g. runs/x/records/train.json"
    )


def _stage(options: argparse.Namespace) -> int:
    from flows.processes import hold_lifeline

    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
    hold_lifeline()
    from components.core import setup_logging
    from flows.config import load_config
    from flows.stages import execute, stage_named

    setup_logging()
    stage_named(options.name)
    config, out = load_config(options.config), options.out.resolve()
    execute(options.name, config, out)
    return OK


def _add_subject(command: argparse.ArgumentParser) -> None:
    """Options that say who is meant, and with which model."""
    command.add_argument(
        "--photo", type=Path, nargs="+", default=[], help="photos of the person, one or several"
    )
    command.add_argument("--card", type=Path, nargs="+", default=[], help="identity cards instead of photos")
    command.add_argument("--consent", default="not stated", help="what the person in the photos agreed to")
    command.add_argument("--model", help="adapter.safetensors or a model URI (default: the champion)")
    command.add_argument("--profile", default="portraits", help="(default: %(default)s)")
    command.add_argument("--root", default="runs", help="folder of all runs (default: %(default)s)")


def _subject(options: argparse.Namespace, expires: str | None = None) -> Any:
    from flows.single import Subject

    return Subject(
        photos=tuple(photo.resolve() for photo in options.photo),
        cards=tuple(card.resolve() for card in options.card),
        consent=options.consent,
        expires=parse_date(expires),
        model=options.model,
        profile=options.profile,
        root=options.root,
    )


def _add_personalize(commands: Any) -> None:
    details = "Each picture carries in its metadata the recipe it was made by."
    command = _add(commands, "personalize", _personalize, "a person, a prompt, pictures", details)
    _add_subject(command)
    command.add_argument(
        "--prompt", required=True,
        help='what to draw, e.g. "S* as an astronaut"; S* is the person, S1*, S2*... those of several cards',
    )  # fmt: skip
    command.add_argument("--negative-prompt", default="", help="what not to draw")
    command.add_argument("--out", type=Path, default=Path("out"), help="folder (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="of the first picture (default: %(default)s)")
    command.add_argument("--num-images", type=int, default=1, help="how many (default: %(default)s)")
    command.add_argument("--save-card", type=Path, help="keep the person's identity card in this file")
    command.add_argument("--expires", help="date from when on that card is refused, e.g. 2031-12-31")
    dials = command.add_argument_group("dials", "over those of the profile")
    for name, read, words in DIALS:
        dials.add_argument(f"--{name.replace('_', '-')}", type=read, help=words)


def _personalize(options: argparse.Namespace) -> int:
    from flows.single import Wish, personalize_one

    wish = Wish(
        subject=_subject(options, options.expires),
        prompt=options.prompt,
        out=options.out.resolve(),
        negative_prompt=options.negative_prompt,
        seed=options.seed,
        num_images=options.num_images,
        dials={name: getattr(options, name) for name, *_ in DIALS if getattr(options, name) is not None},
        save_card=options.save_card and options.save_card.resolve(),
    )
    for file in personalize_one(wish):
        print(file)
    return OK


def _add_export(commands: Any) -> None:
    details = "Writes a LoRA, a textual inversion and an IP-Adapter of one person, with a README.txt."
    command = _add(commands, "export", _export, "a person as files that stock diffusers loads", details)
    _add_subject(command)
    command.add_argument("--out", type=Path, default=Path("export"), help="folder (default: %(default)s)")
    command.add_argument("--m", type=int, help="how many pseudo-words (default: all)")


def _export(options: argparse.Namespace) -> int:
    from flows.single import export_one

    for file in export_one(_subject(options), options.out.resolve(), options.m):
        print(file)
    return OK


def _add_services(commands: Any) -> None:
    command = _add(
        commands, "services", _services, "Prefect's server and worker and MLflow's page, until Ctrl-C"
    )
    command.add_argument(
        "--prefect-port", type=int, default=4200, help="(default: %(default)s, or a free one)"
    )
    command.add_argument(
        "--mlflow-port", type=int, default=5000, help="(default: %(default)s, or a free one)"
    )
    command.add_argument("--root", default="runs", help="folder of all runs (default: %(default)s)")


def _services(options: argparse.Namespace) -> int:
    from flows.services import serve

    return serve(prefect_port=options.prefect_port, mlflow_port=options.mlflow_port, root=options.root)


def _add_doctor(commands: Any) -> None:
    command = _add(
        commands, "doctor", _doctor, "look at machine and installation; each finding with its mend"
    )
    command.add_argument(
        "--profile", default="portraits", help="profile whose weights to look for (default: %(default)s)"
    )


def _doctor(options: argparse.Namespace) -> int:
    from flows.doctor import examine, say

    findings = examine(options.profile)
    print(say(findings))
    return FAILED if any(finding.mend for finding in findings) else OK


def _add_verify_shards(commands: Any) -> None:
    details = "Names every flipped byte, missing or doubled sample, wrong shape and unnamed tar; 1 if any."
    command = _add(commands, "verify-shards", _verify_shards, "check a set of prepared samples", details)
    command.add_argument("folder", type=Path, help="the set's folder, or its manifest.json")


def _verify_shards(options: argparse.Namespace) -> int:
    from components.shards import open_manifest, verify_shards

    manifest = open_manifest(options.folder)
    faults = verify_shards(manifest)
    for fault in faults:
        print(fault)
    shards = len(manifest.shards)
    print(f"{shards} shards, {manifest.count_out} samples: {f'{len(faults)} faults' if faults else 'whole'}")
    return FAILED if faults else OK


def _add_diverse_set(commands: Any) -> None:
    details = (
        "Photos of people who are in training are never taken; too few of a cell is said in the manifest."
    )
    command = _add(
        commands, "diverse-set", _diverse_set, "pick a held-out set, balanced over group and gender", details
    )
    command.add_argument(
        "--kind", default="folder", help="layout of the photos, e.g. fairface (default: %(default)s)"
    )
    command.add_argument("--photos", required=True, help="folder or URL of the labelled photos")
    command.add_argument("--out", type=Path, required=True, help="new folder for the set")
    command.add_argument(
        "--count", type=int, default=326, help="photos to pick (default: %(default)s, the paper's)"
    )
    command.add_argument(
        "--seed", type=int, default=0, help="another seed picks others (default: %(default)s)"
    )
    command.add_argument("--training", type=Path, help="shard set whose people must not be in it")
    command.add_argument(
        "--profile", default="portraits", help="whose detector and identity net (default: %(default)s)"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting over the profile's, e.g. --set face.pack=data/packs/buffalo_l",
    )  # fmt: skip


def _diverse_set(options: argparse.Namespace) -> int:
    from components.prepare import DiverseRequest, SourceConfig, pick_diverse_set
    from flows.config import anchored, resolve

    config = anchored(resolve(options.profile, parse_settings(options.settings), name="diverse-set"))
    source = SourceConfig.parse({"kind": options.kind, "path": options.photos}, source="--kind and --photos")
    request = DiverseRequest.parse(
        {"count": options.count, "seed": options.seed}, source="--count and --seed"
    )
    record = pick_diverse_set(
        request, source, config.prepare, config.face, base=config.model.base, out=options.out,
        training=options.training,
    )  # fmt: skip
    for cell in record.cells:
        print(f"{cell.group:12} {cell.gender:12} asked {cell.asked:4}  found {cell.found:4}")
    print(f"{record.found} of {record.asked} photos: {options.out / 'diverse_set.json'}")
    return OK


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Returns nested settings from `key.key=value` words; values are read as YAML.

    Raises:
        ValueError: A word has no `=`.
    """
    import yaml

    from components.core import deep_merge

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {pair!r}: expected KEY=VALUE, e.g. train.steps=300")
        nested: Any = yaml.safe_load(value)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        settings = deep_merge(settings, nested)
    return settings


if __name__ == "__main__":
    sys.exit(main())
