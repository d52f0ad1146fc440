"""Commands about sets of photos: verify-shards, diverse-set."""

import argparse
from pathlib import Path
from typing import Any

from flows.commands.options import FAILED, OK, add_command, parse_settings


def add_commands(commands: Any) -> None:
    """Adds this file's commands to the parser."""
    _add_verify_shards(commands)
    _add_diverse_set(commands)


def _add_verify_shards(commands: Any) -> None:
    details = "Names every flipped byte, missing or doubled sample, wrong shape and unnamed tar; 1 if any."
    command = add_command(
        commands, "verify-shards", _verify_shards, "check a set of prepared samples", details
    )
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
    command = add_command(
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
