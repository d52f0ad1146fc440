"""Everything that the judges look at, real and generated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.evaluation.data import Photo


@dataclass(frozen=True)
class Evidence:
    """Everything the judges look at. Legend as in metrics.

    Attributes:
        photos: All real photos of the chosen people.
        reference_R: Index of each reference in `photos`.
        generated: R lists of K pictures, (H, W, 3) RGB.
        base: B pictures of the base model alone.
        through_vae: Each reference encoded and decoded by the VAE, (R,); empty where nobody did it.
        files: Where each generated picture lies, ordered as `generated`; empty where they are in no file.
    """

    photos: Sequence[Photo]
    reference_R: NDArray[np.intp]
    generated: Sequence[Sequence[NDArray[np.uint8]]]
    base: Sequence[NDArray[np.uint8]]
    through_vae: Sequence[NDArray[np.uint8]] = ()
    files: Sequence[Sequence[Path]] = ()

    @property
    def references(self) -> list[Photo]:
        """The reference photos, (R,)."""
        return [self.photos[i] for i in self.reference_R]
