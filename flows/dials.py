"""How dials, dates and consents are written at the command line."""

import argparse
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.inference import Consent


def parse_date(text: str | None) -> datetime | None:
    """Returns midnight UTC of a date such as 2031-12-31.

    Raises:
        ValueError: It is no date.
    """
    if text is None:
        return None
    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError:
        raise ValueError(f"--expires {text!r}: expected a date such as 2031-12-31") from None


def read_consent(person: str | None, purpose: str, given: str | None) -> "Consent":
    """Returns the consent that the options state.

    Raises:
        ValueError: A value is not allowed.
    """
    from components.inference import Consent

    values = {"purpose": purpose} | ({"person": person} if person else {})
    return Consent.parse(values | ({"given": given} if given else {}), source="--person and --consent")


def share_list(text: str) -> tuple[tuple[float, float], ...]:
    """Reads a schedule, `0:0,0.2:1`: share of the steps, and the value from there on."""
    try:
        return tuple((float(share), float(value)) for share, value in map(_halves, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no schedule such as 0:0,0.2:1") from None


def _halves(text: str) -> list[str]:
    return text.split(":")


def number_list(text: str) -> tuple[float, ...]:
    """Reads one number a resolution level, finest first: `1,0.5,0`."""
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,0.5,0") from None


# Name, how it is read, what it does; every field of `Dials` has its option.
DIALS: tuple[tuple[str, Any, str], ...] = (
    ("gamma", float, "weight of the text branch"),
    ("sigma", float, "weight of the visual branch: up for more identity, down for more style"),
    ("alpha", float, "weight of the LoRA"),
    ("m", int, "how many pseudo-words S* stands for"),
    ("guidance_scale", float, "classifier-free guidance; 1 turns it off"),
    ("num_inference_steps", int, "denoising steps"),
    ("candidates", int, "pictures drawn for each that is kept: the one most like the person; each costs one"),
    ("strength", float, "image-to-image: start from the photo, this far noised (0 to 1)"),
    ("gamma_schedule", share_list, "factor on gamma over the steps, e.g. 0:0,0.2:1"),
    ("sigma_schedule", share_list, "factor on sigma over the steps"),
    ("alpha_schedule", share_list, "factor on alpha over the steps"),
    ("m_schedule", share_list, "m over the steps, e.g. 0:1,0.5:5"),
    ("gamma_levels", number_list, "factor on gamma for each resolution level, finest first, e.g. 1,0.5,0"),
    ("sigma_levels", number_list, "factor on sigma for each resolution level"),
    ("alpha_levels", number_list, "factor on alpha for each resolution level"),
    ("m_levels", number_list, "m for each resolution level"),
)
