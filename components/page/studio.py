"""What the page does, without its looks: checks what is asked for, draws it, keeps people."""

import json
import logging
import random
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.page import words
from components.page.config import PageConfig

if TYPE_CHECKING:
    from components.inference import CardStore, Dials, IdentityCard, Personalizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ask:
    """What somebody wants drawn.

    Attributes:
        photo: File of the person's photo; None with a kept card.
        card: ID of a kept card; None with a photo.
        agreed: Whether the person in the photo agreed.
        prompt: With S* for the person.
        negative_prompt: What not to draw.
        seed: Of the first picture; None or below 0 picks one.
        count: How many pictures.
        dials: Over the model's own; a "strength" starts from the photo.
    """

    photo: Path | None
    prompt: str
    card: str | None = None
    agreed: bool = False
    negative_prompt: str = ""
    seed: int | None = None
    count: int = 1
    dials: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shot:
    """One picture of the session.

    Attributes:
        file: PNG with recipe, mark and signature; None where the safety checker blocked it.
        seed: As used.
        similarity: To the photo, -1 to 1; None without a photo or a face.
        recipe: What it is made of, the prompt included.
    """

    file: Path | None
    seed: int
    similarity: float | None
    recipe: dict[str, Any]

    @property
    def caption(self) -> str:
        """The line under the picture."""
        if self.similarity is None:
            return f"seed {self.seed}"
        return f"similarity {self.similarity:.2f} · seed {self.seed}"


class Refusal(ValueError):
    """What the person at the page can mend, in their words."""


class Studio:
    """Draws for one page. One picture at a time: a pipeline must not be used by two threads at once.

    Args:
        personalizer: Base, adapter and face tools.
        dials: The model's own dials.
        cards: Kept people; None keeps nobody.
        config: Limits.
    """

    def __init__(
        self,
        personalizer: "Personalizer",
        dials: "Dials",
        cards: "CardStore | None" = None,
        config: PageConfig | None = None,
    ) -> None:
        self._personalizer, self.dials, self._cards = personalizer, dials, cards
        self.config = config or PageConfig()
        self._turn = threading.Lock()

    @property
    def model_version(self) -> str:
        """The model that draws."""
        return self._personalizer.model_version

    @property
    def most_words(self) -> int:
        """The most pseudo-words that S* can stand for."""
        return self._personalizer.attachment.adapter.m

    def draw(self, ask: Ask, folder: Path) -> Iterator[Shot]:
        """Yields each picture as soon as it is there, its file in the folder.

        Raises:
            Refusal: The photo, the card, the words or a dial cannot be used; the message says which.
        """
        self._check(ask)
        with self._turn:
            try:
                yield from self._shots(ask, folder)
            except ValueError as error:
                raise Refusal(in_words(error)) from error

    def _check(self, ask: Ask) -> None:
        most = self.config.max_prompt_characters
        rules = (
            (ask.photo is None and not ask.card, words.NO_PERSON),
            (ask.photo is not None and not ask.card and not ask.agreed, words.NO_CONSENT),
            (not ask.prompt.strip(), words.NO_PROMPT),
            ("S*" not in ask.prompt, words.NO_SUBJECT),
            (ask.dials.get("strength") is not None and ask.photo is None, words.NO_START),
            (len(ask.prompt) > most, f"Too many words: {len(ask.prompt)} characters; allowed are {most}."),
            (not 1 <= ask.count <= self.config.max_images, f"1 to {self.config.max_images} pictures a time."),
        )
        for broken, said in rules:
            if broken:
                raise Refusal(said)

    def _shots(self, ask: Ask, folder: Path) -> Iterator[Shot]:
        from components.inference import Blocked, Dials, save_png

        if ask.dials.get("num_inference_steps", 1) > self.config.max_steps:
            raise ValueError(f"steps: at most {self.config.max_steps}")
        dials = Dials.parse(self.dials.model_dump() | ask.dials, source="the dials")
        card = self._person(ask)
        start = self._personalizer.start_image(ask.photo) if dials.strength and ask.photo else None
        first = random.randrange(100_000) if ask.seed is None or ask.seed < 0 else ask.seed
        for seed in ((first + k) % 2**32 for k in range(ask.count)):
            drawn = self._personalizer.generate_each(
                [card], [ask.prompt], [seed], dials, [ask.negative_prompt], [start], keep_prompt=True
            )[0]
            if isinstance(drawn, Blocked):
                yield Shot(None, seed, None, {})
                continue
            file = save_png(drawn, folder / f"photoverse-{seed}-{uuid.uuid4().hex[:6]}.png")
            yield Shot(file, seed, self._similarity(ask.photo, drawn), json.loads(drawn.info["photoverse"]))
        if ask.card and self._cards is not None:
            self._cards.used(ask.card, "page", ask.count)

    def _person(self, ask: Ask) -> "IdentityCard":
        if ask.card:
            if self._cards is None:
                raise ValueError("no people are kept here")
            return self._cards.load(ask.card)
        assert ask.photo is not None
        return self._personalizer.card(ask.photo, consent="agreed on the page, for these pictures")

    def _similarity(self, photo: Path | None, picture: Any) -> float | None:
        if photo is None:
            return None
        try:
            return self._personalizer.similarity(photo, [picture])[0]
        except ValueError:  # this base has no identity network
            return None

    def people(self) -> list[tuple[str, str]]:
        """Returns (what to show, ID) of each kept person."""
        if self._cards is None:
            return []
        self._cards.sweep()
        kept = self._cards.all()
        return [(f"{card.consent.person}: {card.consent.purpose[:40]}", card.id) for card in kept]

    def keep(self, photo: Path | None, person: str, purpose: str, agreed: bool, days: int | None) -> str:
        """Keeps the person of a photo as an identity card, and returns its ID.

        Args:
            photo: File.
            person: The ID by which the person can be forgotten.
            purpose: What the person agreed to.
            agreed: Whether the person agreed.
            days: How long; None is without end.

        Raises:
            Refusal: Something is missing, or the photo cannot be used.
        """
        from components.inference import Consent

        if photo is None:
            raise Refusal("Add a photo of the person first.")
        if not agreed:
            raise Refusal(words.NO_CONSENT)
        if self._cards is None:
            raise Refusal("No people are kept here.")
        if not person.strip() or not purpose.strip():
            raise Refusal("Give the person a name, and say what they agreed to.")
        until = None if days is None else datetime.now(UTC) + timedelta(days=days)
        with self._turn:
            try:
                consent = Consent.parse({"person": person.strip(), "purpose": purpose}, source="the consent")
                return self._cards.keep(self._personalizer.card(photo, consent=consent, expires=until))
            except ValueError as error:
                raise Refusal(in_words(error)) from error


def in_words(error: ValueError) -> str:
    """Returns a fault as a sentence for people: no paths of this machine, no list of fields."""
    said = words.FAULTS.get(getattr(error, "reason", ""))
    if said is None:
        said = " ".join(str(error).split())
        said = f"{said[:1].upper()}{said[1:300]}"
    return said


def explain(error: Exception) -> str:
    """Returns what to tell the person: a refusal as it is, a fault of ours as a mark that the log knows."""
    if isinstance(error, Refusal):
        return str(error)
    mark = uuid.uuid4().hex[:8]
    logger.error("fault %s", mark, exc_info=error)
    return words.FAULT.format(mark=mark)
