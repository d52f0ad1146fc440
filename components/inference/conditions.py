"""What a call of a pipeline is told about its persons: rows, tensors for the UNet, dials over the steps.

Legend: B prompts, n images a prompt, N visual tokens of a row, D width of the text encoder, R resolution
levels. The UNet's batch is B*n rows, prompt by prompt, after as many unconditional rows if guidance is on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from components.inference.card import IdentityCard
from components.inference.config import Dials, Schedule

# Who is in a prompt: nobody, one person (S*), or several (S1*, S2*...).
Persons = IdentityCard | Sequence[IdentityCard] | None


@dataclass(frozen=True)
class Row:
    """One prompt of a call."""

    prompt: str
    negative: str
    persons: tuple[IdentityCard, ...]
    dials: Dials


def make_rows(
    prompts: Sequence[str],
    persons: Sequence[Persons],
    dials: Dials | Sequence[Dials],
    negative_prompts: Sequence[str] | None,
) -> list[Row]:
    """Puts together what belongs together; a ValueError says which list has another length."""
    count = len(prompts)
    all_dials = [dials] * count if isinstance(dials, Dials) else list(dials)
    negatives = [""] * count if negative_prompts is None else list(negative_prompts)
    for name, values in (("persons", persons), ("dials", all_dials), ("negative_prompts", negatives)):
        if len(values) != count:
            raise ValueError(f"{count} prompts, but {len(values)} {name}")
    if not count:
        raise ValueError("no prompt given")
    return [
        Row(prompt, negative, people(person), dial)
        for prompt, negative, person, dial in zip(prompts, negatives, persons, all_dials, strict=True)
    ]


def people(persons: Persons) -> tuple[IdentityCard, ...]:
    """Returns the persons of a prompt as a tuple."""
    if persons is None:
        return ()
    return (persons,) if isinstance(persons, IdentityCard) else tuple(persons)


def shared_key(dials: Dials) -> tuple[Any, ...]:
    """Returns the dials that all pictures of one call must share: they are properties of the call."""
    return (
        dials.alpha,
        dials.alpha_schedule,
        dials.alpha_levels,
        dials.guidance_scale,
        dials.num_inference_steps,
        dials.strength,
        bool(dials.m_levels),
    )


def shared_dials(rows: Sequence[Row]) -> Dials:
    """Returns dials that hold for the whole call.

    Raises:
        ValueError: Rows differ in what must be shared.
    """
    first = rows[0].dials
    for row in rows:
        if shared_key(row.dials) != shared_key(first):
            raise ValueError(
                "the pictures of one call share alpha, its schedule and levels, guidance_scale, "
                f"num_inference_steps, strength and whether m differs by level: found {shared_key(first)} "
                f"and {shared_key(row.dials)}; make one call for each"
            )
    return first


def factor_at(schedule: Schedule, progress: float) -> float:
    """Returns the factor of a schedule when `progress` (0..1) of the steps is done; 1 without a schedule."""
    factor = 1.0
    for share, value in schedule:
        if progress >= share:
            factor = value
    return factor


def branch_weights(rows: Sequence[Row], progress: float, levels: int) -> tuple[Tensor, Tensor]:
    """Returns gamma and sigma of the rows at one moment: (B, levels) each. Without persons sigma is 0."""
    gamma, sigma = torch.empty(len(rows), levels), torch.zeros(len(rows), levels)
    for i, row in enumerate(rows):
        dials = row.dials
        gamma[i] = dials.gamma * factor_at(dials.gamma_schedule, progress)
        gamma[i] *= _per_level(dials.gamma_levels, levels)
        if row.persons:
            sigma[i] = dials.sigma * factor_at(dials.sigma_schedule, progress)
            sigma[i] *= _per_level(dials.sigma_levels, levels)
    return gamma, sigma


def alpha_at(dials: Dials, progress: float, levels: int) -> float | tuple[float, ...]:
    """Returns alpha at one moment: one for all, or one a resolution level where `alpha_levels` is given."""
    alpha = dials.alpha * factor_at(dials.alpha_schedule, progress)
    if not dials.alpha_levels:
        return alpha
    return tuple((alpha * _per_level(dials.alpha_levels, levels)).tolist())


def words_at(dials: Dials, progress: float, level: int, levels: int) -> int | None:
    """Returns m at one moment and resolution level; None is all words of the card."""
    if dials.m_levels:
        _check_levels(dials.m_levels, levels)
        return dials.m_levels[level]
    return int(factor_at(dials.m_schedule, progress)) if dials.m_schedule else dials.m


def moments(rows: Sequence[Row]) -> list[float]:
    """Returns the shares of the steps at which some row's m changes, from 0."""
    return sorted({0.0, *(share for row in rows for share, _ in row.dials.m_schedule)})


def _per_level(factors: tuple[float, ...], levels: int) -> Tensor:
    if not factors:
        return torch.ones(levels)
    _check_levels(factors, levels)
    return torch.tensor(factors)


def _check_levels(values: Sequence[float], levels: int) -> None:
    if len(values) != levels:
        raise ValueError(f"{len(values)} factors for resolution levels; this UNet has {levels}")


def levels_used(rows: Sequence[Row], unet: Any) -> int:
    """Returns R where a dial differs by level, else 1."""
    by_level = any(row.dials.gamma_levels or row.dials.sigma_levels for row in rows)
    return len(unet.config.block_out_channels) if by_level else 1


def expand_rows(values: Tensor, images: int, guided: bool, unconditional: float | None = None) -> Tensor:
    """Repeats (B, ...) for each image of a prompt and puts the unconditional half before it.

    Args:
        values: (B, ...).
        images: n.
        guided: Whether there is an unconditional half.
        unconditional: Value of that half; None copies the rows.
    """
    conditional = values.repeat_interleave(images, dim=0)
    if not guided:
        return conditional
    half = conditional if unconditional is None else torch.full_like(conditional, unconditional)
    return torch.cat([half, conditional])


def stack_tokens(rows: Sequence[Row], width: int, grouped: bool) -> tuple[Tensor, Tensor | None]:
    """Stacks the visual tokens of all rows, padded to one length.

    Args:
        rows: B prompts.
        width: D.
        grouped: Whether each person must have equally many places (for regions).

    Returns:
        (B, N, D) tokens, and a (B, N) mask of those that count, or None if all do. A row without persons
        has one token of zeros, which its sigma of 0 silences.
    """
    longest = max((len(card.visual_tokens) for row in rows for card in row.persons), default=1)
    tokens, masks = [], []
    for row in rows:
        parts = [card.visual_tokens for card in row.persons] or [torch.zeros(1, width)]
        counted = [torch.ones(len(part), dtype=torch.bool) for part in parts]
        if grouped:
            parts = [_padded(part, longest) for part in parts]
            counted = [_padded(mask, longest) for mask in counted]
        tokens.append(torch.cat(parts))
        masks.append(torch.cat(counted))
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad(masks, batch_first=True)
    return pad(tokens, batch_first=True), None if mask.all() else mask


def _padded(values: Tensor, length: int) -> Tensor:
    return torch.cat([values, values.new_zeros(length - len(values), *values.shape[1:])])


def whole_batch(text: Tensor, negative: Tensor | None, images: int) -> Tensor:
    """Embeddings (B, L, D) of the UNet's whole batch, as the pipelines themselves put them together."""
    text = text.repeat_interleave(images, dim=0)
    if negative is None:
        return text
    return torch.cat([negative.repeat_interleave(images, dim=0), text])


def follow_schedules(
    rows: Sequence[Row],
    kwargs: dict[str, Any],
    images: int,
    set_alpha: Callable[[float], None],
    texts: Sequence[tuple[float, Tensor]] = (),
) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None:
    """Returns a `callback_on_step_end` that turns the dials before each next step, or None if none moves.

    The callback writes into the tensors `gamma` and `sigma` of `kwargs`, which the UNet reads at each step,
    and gives the pipeline new prompt embeddings where m changes.

    Args:
        rows: The call's rows.
        kwargs: Its `cross_attention_kwargs`.
        images: n.
        set_alpha: Told the share of the steps that are done, before each step, if alpha moves.
        texts: (share, embeddings of the UNet's whole batch) for each value of m over the steps.
    """
    dials = rows[0].dials
    moving = any(row.dials.gamma_schedule or row.dials.sigma_schedule for row in rows)
    if not moving and not dials.alpha_schedule and len(texts) < 2:
        return None
    gamma, sigma = kwargs.get("gamma"), kwargs.get("sigma")

    def turn(pipe: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        progress = (step + 1) / max(1, pipe.num_timesteps)
        if dials.alpha_schedule:
            set_alpha(progress)
        if moving and gamma is not None and sigma is not None:
            now = branch_weights(rows, progress, gamma.shape[1])
            for tensor, value in zip((gamma, sigma), now, strict=True):
                tensor[-len(rows) * images :] = value.repeat_interleave(images, dim=0).to(tensor)
        if len(texts) > 1:
            values["prompt_embeds"] = [text for share, text in texts if progress >= share][-1]
        return values

    return turn
