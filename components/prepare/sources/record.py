"""What a source says about a photo -> one record: file, person, split and what is known.

Shared by all readers. A reader yields plain rows of strings, with these keys: `file` (needed), `identity`,
`group`, `gender`, `age`, `caption`, `prompt` (what the picture shows, with S* for the person), `split`
(ours), `part` (the set's own name of a split), `licence`, `consent`, `masks` (files, one a line); others are
kept as they are under `extra`.
"""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, get_args

from components.core import ShardFile, derive_seed, fingerprint
from components.prepare.config import PrepareConfig, SourceConfig

Row = dict[str, str]
FACTS = ("group", "gender", "age", "caption", "prompt")
KNOWN = ("identity", *FACTS, "split", "licence", "consent")
HANDLED = ("file", "part", "masks", *KNOWN)
SPLITS: tuple[str, ...] = get_args(ShardFile.model_fields["split"].annotation)


@dataclass(frozen=True)
class PhotoRecord:
    """One photo of a source.

    Attributes:
        file: Path below the source, with forward slashes; in a run of named sources `<name>/<path>`.
        person: Who is on it; unique to the photo where nobody said.
        split: "train", "validation" or "heldout".
        about: The other facts: source, licence, consent, group, gender, age, caption, prompt, extra.
        masks: Files of the set's own face mask, named like `file`; empty where it has none.
        labelled: Whether the source said who it is.
        stated: Whether the source said which split it is in.
    """

    file: str
    person: str
    split: str
    about: dict[str, Any] = field(default_factory=dict)
    masks: tuple[str, ...] = ()
    labelled: bool = field(default=True, compare=False)
    stated: bool = field(default=True, compare=False)

    @property
    def fingerprint(self) -> str:
        """Identity of everything stated about the photo; its pixels do not count."""
        return fingerprint(self.file, self.person, self.split, self.about, self.masks)


def split_of(person: str, config: PrepareConfig) -> str:
    """Returns the split of a person: a pure function of the name, so new photos never move anybody."""
    draw = derive_seed(config.split_salt, "split", person) / 2**63
    if draw < config.heldout_share:
        return "heldout"
    return "validation" if draw < config.heldout_share + config.validation_share else "train"


def is_taken(person: str, weight: float, config: PrepareConfig) -> bool:
    """Tells whether a person is among the share `weight` of a source: a pure function of the name."""
    return derive_seed(config.split_salt, "weight", person) / 2**63 < weight


def to_record(
    row: Row, config: PrepareConfig, source: SourceConfig, licence: str, prefix: str
) -> PhotoRecord:
    """Turns a reader's row into a record.

    Args:
        row: As the reader yields it.
        config: Shares of the splits and other defaults.
        source: Tables of the source.
        licence: Licence where neither row nor settings say one.
        prefix: Put in front of file and person, so that sources never mix them up.

    Raises:
        ValueError: The row states a split that does not exist, or a prompt without S*.
    """
    person = prefix + (row.get("identity") or _person_from_name(row["file"], config))
    stated = row.get("split") or source.splits.get(row.get("part", ""))
    split = stated or split_of(person, config)
    if split not in SPLITS:
        raise ValueError(f"{row['file']} has the split {split!r}; allowed: {', '.join(SPLITS)}")
    if row.get("prompt") and row["prompt"].count("S*") != 1:
        raise ValueError(f"{row['file']} has the prompt {row['prompt']!r}; it must hold S* once")
    about: dict[str, Any] = {
        "source": source.label if prefix else config.source,
        "licence": row.get("licence") or source.licence or licence,
        "consent": row.get("consent") or source.consent or config.consent,
    }
    about |= {name: row[name] for name in FACTS if row.get(name)}
    if "group" in about:
        about["group"] = source.groups.get(about["group"], about["group"])
    extra = {name: value for name, value in row.items() if name not in HANDLED and value}
    return PhotoRecord(
        file=prefix + row["file"],
        person=person,
        split=split,
        about=about | ({"extra": extra} if extra else {}),
        masks=tuple(prefix + name for name in row.get("masks", "").splitlines()),
        labelled=bool(row.get("identity")) or config.identity_from_folder,
        stated=bool(stated),
    )


def _person_from_name(file: str, config: PrepareConfig) -> str:
    name = PurePosixPath(file)
    if config.identity_from_folder and len(name.parts) > 1:
        return name.parent.as_posix()
    return name.as_posix()
