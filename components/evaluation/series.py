"""What is drawn beside the main pictures: other m, prompts to obey, the sweep of dials. Planned, not drawn.

All series share their seeds: the k-th picture of a reference starts from the same noise everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluation.config import EvaluationConfig, swept
from components.evaluation.data import Photo, choose_people
from components.evaluation.generate import Shot, base_dials, plan_base_shots, plan_shots
from components.evaluation.prompts import Prompt, PromptSet
from components.inference import Dials

FolderOf = Callable[[str, Dials], Path]
ALONE: dict[str, Any] = {"candidates": 1}
"""Where the method's own parts and dials are compared, nothing is chosen."""


@dataclass(frozen=True)
class Series:
    """Pictures that are drawn and judged together.

    Attributes:
        kind: "protocol" (another m, a branch alone), "prompt", "base" (the base model alone, the same
            prompts), or the name of a dial.
        label: Which one of its kind: "m = 1", "text branch alone", the prompt, the dial's value.
        shots: All pictures; of the base alone each with nobody in it.
        prompts: The wish of each shot.
        references: The reference of each shot, also where it was not shown to the base model.
    """

    kind: str
    label: str
    shots: tuple[Shot, ...]
    prompts: tuple[Prompt, ...]
    references: tuple[Photo, ...]


def plan_series(
    config: EvaluationConfig, references: Sequence[Photo], sets: Sequence[PromptSet], folder_of: FolderOf
) -> list[Series]:
    """Returns everything that the config asks for beside the main pictures.

    Args:
        config: m, prompts and sweeps.
        references: All references.
        sets: The prompt sets of `config.prompt_sets`.
        folder_of: Folder of the pictures of a prompt and dials.
    """
    prompts = [prompt for one in sets for prompt in one.prompts]
    return [
        *_protocol_series(config, references, folder_of),
        *_prompt_series(config, references, prompts, folder_of),
        *_swept_series(config, references, prompts, folder_of),
    ]


def few_people(references: Sequence[Photo], people: int) -> list[Photo]:
    """Returns one reference each of some people, evenly over groups and genders."""
    first = {photo.person: photo for photo in reversed(references)}
    return choose_people(list(first.values()), min(people, len(first)))


def _protocol_series(
    config: EvaluationConfig, references: Sequence[Photo], folder_of: FolderOf
) -> list[Series]:
    prompt, weight = Prompt(text=config.prompt), config.branch_alone
    turned: dict[str, dict[str, Any]] = {
        f"m = {m}": {"m": m, "m_schedule": (), "m_levels": ()} | ALONE for m in config.m_values
    }
    if weight is not None:
        always: dict[str, Any] = {"gamma_schedule": (), "sigma_schedule": ()} | ALONE
        turned["text branch alone"] = {"gamma": weight, "sigma": 0.0} | always
        turned["visual branch alone"] = {"gamma": 0.0, "sigma": weight} | always
    dials = {label: config.dials.model_copy(update=values) for label, values in turned.items()}
    count = config.m_pictures
    return [
        drawn("protocol", label, prompt, dials[label], references, config, folder_of, count)
        for label in turned
    ]


def _prompt_series(
    config: EvaluationConfig, references: Sequence[Photo], prompts: Sequence[Prompt], folder_of: FolderOf
) -> list[Series]:
    some = few_people(references, config.prompt_people) if prompts else []
    series = []
    for prompt in prompts:
        series.append(drawn("prompt", prompt.text, prompt, config.dials, some, config, folder_of, 1))
        if not config.base_obedience:
            continue
        folder = folder_of(prompt.plain, base_dials(config.dials))
        shots = tuple(plan_base_shots(config, some, folder, prompt=prompt.plain, count=1))
        series.append(Series("base", prompt.text, shots, (prompt,) * len(shots), tuple(some)))
    return series


def _swept_series(
    config: EvaluationConfig, references: Sequence[Photo], prompts: Sequence[Prompt], folder_of: FolderOf
) -> list[Series]:
    some = few_people(references, config.sweep_people) if config.sweeps else []
    series = []
    for dial, values in config.sweeps.items():
        for value in values:
            dials = swept(config.dials.model_copy(update=ALONE), dial, value)
            parts = [
                drawn(dial, f"{value:g}", prompt, dials, some, config, folder_of, 1)
                for prompt in prompts[: config.sweep_prompts]
            ]
            series.append(joined(parts))
    return series


def drawn(
    kind: str,
    label: str,
    prompt: Prompt,
    dials: Dials,
    references: Sequence[Photo],
    config: EvaluationConfig,
    folder_of: FolderOf,
    count: int | None,
) -> Series:
    """Returns the series of one prompt and one set of dials."""
    rows = plan_shots(
        config, references, folder_of(prompt.text, dials), prompt=prompt.text, dials=dials, count=count
    )
    shots = tuple(shot for row in rows for shot in row)
    shown = tuple(shot.reference for shot in shots if shot.reference is not None)
    return Series(kind, label, shots, (prompt,) * len(shots), shown)


def joined(parts: Sequence[Series]) -> Series:
    """Returns series of the same kind and label as one."""
    return Series(
        parts[0].kind,
        parts[0].label,
        tuple(shot for part in parts for shot in part.shots),
        tuple(prompt for part in parts for prompt in part.prompts),
        tuple(photo for part in parts for photo in part.references),
    )
