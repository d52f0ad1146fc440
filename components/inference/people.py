"""The people that a team keeps: their identity cards in one folder, with an audit log, and forgetting them.

cards/<id>.safetensors   identity cards; the ID is random and says nothing of the person
audit.jsonl              made, used, expired, forgotten; no biometric data
"""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.core import inside
from components.inference.audit import AuditLog
from components.inference.consent import Consent
from components.inference.ledger import Ledger

if TYPE_CHECKING:
    from components.inference.card import IdentityCard

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class KeptCard:
    """What is known of a card that is kept, without its tensors.

    Attributes:
        id: Its ID in the store; the file's name for a card elsewhere.
        path: Its file.
        consent: Who agreed to what.
        created: When it was made.
        expires: From when on it is refused; None is never.
    """

    id: str
    path: Path
    consent: Consent
    created: datetime
    expires: datetime | None

    def expired(self, now: datetime | None = None) -> bool:
        """Whether its time is over."""
        return self.expires is not None and (now or datetime.now(UTC)) >= self.expires


class CardStore:
    """Identity cards in a folder, found by ID.

    Args:
        folder: The folder; made when the first card comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cards, self.audit = folder / "cards", AuditLog(folder / "audit.jsonl")

    def keep(self, card: "IdentityCard") -> str:
        """Stores a card and returns its ID.

        Raises:
            ValueError: The consent names no person, is of the future or was withdrawn since, or the card has
                expired.
        """
        card.consent.check_named()
        self.check_not_withdrawn(card.consent)
        card.check_date()
        name = uuid.uuid4().hex
        card.save(self.cards / f"{name}{SUFFIX}")
        self.audit.add("made", card.consent.person, name, card.consent.purpose)
        return name

    def load(self, name: str) -> "IdentityCard":
        """Returns a card.

        Raises:
            ValueError: There is none of this ID, or it has expired; an expired card is removed at once.
        """
        from components.inference.card import IdentityCard

        path = self.path(name)
        if _kept(path).expired():
            self.sweep()
            raise ValueError(f"the card {name} has expired and is removed")
        return IdentityCard.load(path)

    def path(self, name: str) -> Path:
        """Returns the file of a card; a ValueError if there is none of this ID."""
        if len(name) == 32 and set(name) <= set("0123456789abcdef"):
            path = inside(self.cards, name + SUFFIX)
            if path.is_file():
                return path
        raise ValueError(f"no card {name[:40]!r} is kept here")

    def used(self, name: str, by: str, pictures: int) -> None:
        """Writes into the audit log that a card was used, by what and for how many pictures."""
        kept = _kept(self.path(name))
        self.audit.add("used", kept.consent.person, name, by, pictures)

    def check_not_withdrawn(self, consent: Consent) -> None:
        """Refuses a consent that is not newer than the day on which the person was forgotten.

        Raises:
            ValueError: It was withdrawn.
        """
        days = [row.at.date() for row in self.audit.rows(consent.person) if row.event == "forgotten"]
        if days and consent.given <= max(days):
            raise ValueError(
                f"consent of {consent.person!r} given on {consent.given} was withdrawn on {max(days)}: "
                "a newer one is needed"
            )

    def forgotten(self) -> list[str]:
        """Returns the IDs of everybody who was forgotten."""
        return sorted({row.person for row in self.audit.rows() if row.event == "forgotten"})

    def all(self) -> list[KeptCard]:
        """Returns all cards, oldest first, expired ones included."""
        return sorted(find_cards([self.cards]), key=lambda kept: (kept.created, kept.id))

    def sweep(self, now: datetime | None = None) -> list[KeptCard]:
        """Removes the cards whose time is over, and returns them."""
        over = [kept for kept in self.all() if kept.expired(now)]
        for kept in over:
            kept.path.unlink(missing_ok=True)
            self.audit.add("expired", kept.consent.person, kept.id)
        return over


def find_cards(folders: Iterable[Path]) -> Iterator[KeptCard]:
    """Yields every identity card below the folders; other safetensors files are passed over."""
    for path in sorted({path for folder in folders for path in folder.rglob(f"*{SUFFIX}")}):
        try:
            yield _kept(path)
        except ValueError:
            continue


def _kept(path: Path) -> KeptCard:
    from components.inference.card import IdentityCard

    facts = IdentityCard.read_facts(path)
    return KeptCard(path.stem, path, facts["consent"], facts["created"], facts["expires"])


@dataclass(frozen=True)
class Forgotten:
    """What is proved after a person was forgotten.

    Attributes:
        person: The person's ID.
        removed: Files that were there and are gone.
        left: Files of the person that are still there; empty when all went well.
    """

    person: str
    removed: tuple[Path, ...]
    left: tuple[Path, ...]


def forget_person(person: str, store: CardStore, folders: Iterable[Path]) -> Forgotten:
    """Removes what is kept of a person, and looks again whether it is gone.

    Removed are the person's cards (in the store and anywhere below the folders), and of every batch ledger
    below the folders the pictures and thumbnails of the person. The ledgers' and the audit log's rows stay,
    with a row more that says so: they hold no biometric data.

    Args:
        person: The ID that the consents name.
        store: The cards of the team; its audit log gets the row.
        folders: Where else to look, e.g. the folder of all runs.
    """
    places = [store.folder, *folders]
    found = files_of(person, places)
    for path in found:
        path.unlink(missing_ok=True)
    for ledger in ledgers_below(places):
        ledger.forget(person)
    left = files_of(person, places)
    cards = sorted(path.stem for path in found if path.parent == store.cards)
    for name in cards:
        store.audit.add("forgotten", person, name)
    store.audit.add("forgotten", person, pictures=len(found) - len(left))
    return Forgotten(person, tuple(path for path in found if path not in left), tuple(left))


def files_of(person: str, places: Iterable[Path]) -> list[Path]:
    """Returns all files below the places that show or describe the person."""
    places = list(places)
    found = {kept.path for kept in find_cards(places) if kept.consent.person == person}
    for ledger in ledgers_below(places):
        found |= {path for path in ledger.files_of(person) if path.is_file()}
    return sorted(found)


def ledgers_below(places: Iterable[Path]) -> list[Ledger]:
    """Returns the ledgers of all batches below the places."""
    return [Ledger(folder) for folder in sorted({p.parent for at in places for p in at.rglob(Ledger.NAME)})]
