"""The command: `python -m components.portraits.pretrain [--out DIR] [--work DIR] [--minutes PART=N] ...`."""

import argparse
from pathlib import Path

import cv2
import torch

from components.core import load_yaml
from components.portraits.pretrain.config import PARTS, PretrainConfig
from components.portraits.pretrain.make import make_base


def parse(arguments: list[str] | None = None) -> tuple[PretrainConfig, Path, Path]:
    """Reads the command line.

    Returns:
        The config, the work folder and the output folder.
    """
    parser = argparse.ArgumentParser(prog="python -m components.portraits.pretrain", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/base-model/base"), help="base folder to write (%(default)s)"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/base-model"), help="caches and checkpoints")
    parser.add_argument("--config", type=Path, help="YAML of settings; the options below win over it")
    parser.add_argument("--parts", help=f"comma-separated, of {','.join(PARTS)}")
    parser.add_argument("--minutes", action="append", default=[], metavar="PART=N", help="budget of a part")
    parser.add_argument(
        "--steps", action="append", default=[], metavar="PART=N", help="budget of a part in steps"
    )
    parser.add_argument("--hours", type=float, help="total time of training, shared as by default")
    parser.add_argument("--scale", type=float, default=1.0, help="scale budgets and people, for a first look")
    parser.add_argument("--go-on", action="store_true", help="begin the UNet with the weights in --out")
    parser.add_argument("--threads", type=int, help="threads of torch, processes of drawing")
    given = parser.parse_args(arguments)
    values = load_yaml(given.config) if given.config else {}
    if given.parts:
        values["parts"] = tuple(given.parts.split(","))
    if given.go_on:
        values["go_on"] = True
    if given.threads:
        values["threads"] = given.threads
    config = PretrainConfig.parse(values, source=str(given.config or "command line"))
    if given.hours:
        total = sum(config.budget(part).minutes for part in PARTS)
        config = _share(config, 60 * given.hours / total)
    config = _override(config, "minutes", given.minutes)
    config = _override(config, "steps", given.steps)
    return config.scaled(given.scale), given.work, given.out


def _share(config: PretrainConfig, factor: float) -> PretrainConfig:
    changes: dict[str, object] = {
        part: config.budget(part).model_copy(update={"minutes": config.budget(part).minutes * factor})
        for part in PARTS
    }
    return config.model_copy(update=changes)


def _override(config: PretrainConfig, key: str, settings: list[str]) -> PretrainConfig:
    for setting in settings:
        part, _, number = setting.partition("=")
        if part not in PARTS or not number:
            raise ValueError(f"--{key} {setting!r}: expected PART=N with PART one of {', '.join(PARTS)}")
        budget = config.budget(part).model_dump() | {key: number}
        values = config.model_dump() | {part: budget}
        config = PretrainConfig.parse(values, source=f"--{key}")
    return config


def main() -> None:
    """Sets up this process for long arithmetic and makes the base."""
    config, work, out = parse()
    torch.set_num_threads(config.threads)
    torch.set_flush_denormal(True)  # of the whole process: numbers too small to matter cost a hundredfold
    cv2.setNumThreads(1)
    make_base(config, work, out)


if __name__ == "__main__":
    main()
