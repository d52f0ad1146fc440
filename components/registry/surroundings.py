"""What a served model finds around it: kept cards, the audit log, the key that signs pictures.

A registered model is a folder that may be served anywhere. Where its team keeps people and the signing key is
said by the environment, for `mlflow models serve` has no settings of ours.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from components.inference import CardStore, ProvenanceConfig

ROOT, PROVENANCE = "PHOTOVERSE_ROOT", "PHOTOVERSE_PROVENANCE"


@dataclass(frozen=True)
class Surroundings:
    """What the engine of a served model needs beside its package.

    Attributes:
        cards: The kept cards that requests may name; None knows none.
        provenance: Mark and signature of the pictures, and whether the base's safety checker is used.
    """

    cards: "CardStore | None"
    provenance: "ProvenanceConfig"


def read_surroundings(environment: Mapping[str, str] = os.environ) -> Surroundings:
    """Reads the environment.

    Args:
        environment: $PHOTOVERSE_ROOT is the folder of all runs, whose `people` and `credentials` are used;
            without it no cards are known and each process signs with a key of its own.
            $PHOTOVERSE_PROVENANCE lays settings over `ProvenanceConfig`, as YAML: `{sign: false}`.

    Raises:
        ValueError: There is no such folder, or a setting is not known.
    """
    from components.inference import CardStore, ProvenanceConfig

    values = yaml.safe_load(environment.get(PROVENANCE) or "{}")
    if not isinstance(values, dict):
        raise ValueError(f"${PROVENANCE}: expected settings such as {{sign: false}}, found {values!r}")
    provenance = ProvenanceConfig.parse(values, source=f"${PROVENANCE}")
    if not environment.get(ROOT):
        return Surroundings(None, provenance)
    root = Path(environment[ROOT]).expanduser().absolute()
    if not root.is_dir():
        raise ValueError(f"${ROOT}: there is no folder {root}")
    return Surroundings(CardStore(root / "people"), provenance.below(root))
