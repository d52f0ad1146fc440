"""`photoverse personalize` and `photoverse export`: one person, with the champion or an adapter's file."""

import sys
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import PipelineConfig, anchored, resolve
from flows.environment import PROJECT

if TYPE_CHECKING:
    from components.inference import Consent, IdentityCard, Personalizer
    from components.registry import ResolvedModel

SHIPPED_BASE = PROJECT / "components" / "portraits" / "base"
SHIPPED_ADAPTER = PROJECT / "components" / "portraits" / "adapter" / "adapter.safetensors"
M_DIALS = ("m", "m_schedule", "m_levels")  # three ways of saying one thing: one given replaces the others


@dataclass(frozen=True)
class Subject:
    """Who is meant, and what with.

    Attributes:
        photos: Photos of one person, who becomes S*.
        cards: Identity cards, one a person (S1*, S2*...); they need no photo and no image encoder.
        consent: Who agreed to what, and when.
        expires: From when on a card made here is refused.
        model: An adapter's safetensors file, or a model URI; None takes the champion.
        profile: Where base, face tools, photo rules and default dials are taken from.
        root: Folder of all runs, whose registry knows the champion.
    """

    photos: tuple[Path, ...] = ()
    cards: tuple[Path, ...] = ()
    consent: "Consent | str" = "not stated"
    expires: datetime | None = None
    model: str | None = None
    profile: str = "portraits"
    root: str = "runs"

    def check(self) -> None:
        """Refuses what cannot be there, before anything heavy is loaded."""
        for photo in self.photos:
            if not photo.is_file():
                raise ValueError(f"no photo at {photo}")
        for card in self.cards:
            if not card.is_file():
                raise ValueError(f"no identity card at {card}")
        if not self.photos and not self.cards:
            raise ValueError("who is meant? give --photo (one person) or --card (one a person)")

    def config(self) -> PipelineConfig:
        """The settings that the profile gives."""
        return anchored(resolve(self.profile, {"root": self.root}, name="personalize"))

    def persons(self, personalizer: "Personalizer") -> list["IdentityCard"]:
        """Loads the cards, or makes one of the photos."""
        from components.inference import IdentityCard

        if self.cards:
            return [IdentityCard.load(card) for card in self.cards]
        return [personalizer.card(list(self.photos), self.consent, self.expires)]


@dataclass(frozen=True)
class Wish:
    """What somebody asks `photoverse personalize` for.

    Attributes:
        subject: Who.
        prompt: What to draw; S* (or S1*, S2*...) stands for the person.
        out: Folder of the pictures, one file a seed.
        negative_prompt: What not to draw.
        seed: Of the first picture; the next ones count up.
        num_images: How many.
        dials: Values over the profile's, e.g. {"sigma": 0.8}; with a strength the first photo is the start.
        save_card: Where to write the card that is made of the photos.
        keep_card: Keep it among the team's cards, where requests find it by its ID.
        store: URL of the store that holds the team's cards; None: they are below the subject's root.
        kind: "png" or "jpg".
    """

    subject: Subject
    prompt: str
    out: Path
    negative_prompt: str = ""
    seed: int = 0
    num_images: int = 1
    dials: dict[str, Any] = field(default_factory=dict)
    save_card: Path | None = None
    keep_card: bool = False
    store: str | None = None
    kind: str = "png"


def personalize_one(wish: Wish) -> list[Path | str]:
    """Draws the pictures; returns a line on the card if one is kept, and the files with their recipes.

    Raises:
        ValueError: No photo, no face in it, a card that has expired or is of another model, no model, or a
            dial out of range; the message says which. `BlockedError` where the safety checker blocks one.
    """
    from components.inference import Dials, save_jpeg, save_png

    wish.subject.check()
    config = wish.subject.config()
    dials = Dials.parse(merged_dials(config.batch.dials.model_dump(), wish.dials), source="dials")
    _check_photos(wish, dials)
    seeds = [(wish.seed + k) % 2**32 for k in range(wish.num_images)]
    personalizer = load_personalizer(config, wish.subject.model, cards_only=bool(wish.subject.cards))
    persons = wish.subject.persons(personalizer)
    kept = _keep_card(wish, persons[0])
    personalizer.attachment.pipe.set_progress_bar_config(desc="drawing", disable=None)  # in terminals alone
    start = personalizer.start_image(wish.subject.photos[0]) if dials.strength else None
    images = personalizer.generate(
        [persons] * wish.num_images,
        [wish.prompt] * wish.num_images,
        seeds=seeds,
        dials=dials,
        negative_prompts=[wish.negative_prompt] * wish.num_images,
        start_images=[start] * wish.num_images,
        batch_size=config.batch.batch_size,
        keep_prompt=True,
    )
    save = save_jpeg if wish.kind == "jpg" else save_png
    files = [wish.out / f"seed-{seed}.{wish.kind}" for seed in seeds]
    return [*kept, *(save(image, file) for image, file in zip(images, files, strict=True))]


def _keep_card(wish: Wish, card: "IdentityCard") -> list[str]:
    """Keeps the card where the wish says, and returns what to say about it."""
    if wish.save_card is not None:
        card.save(wish.save_card)
    if not wish.keep_card:
        return []
    from components.inference import CardStore
    from flows.stage_store import PEOPLE, at_hand

    with at_hand(wish.store, wish.subject.root) as root:
        return [f"card {CardStore(root / PEOPLE).keep(card)}"]


def merged_dials(profile: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Lays the dials that were asked for over the profile's."""
    if any(name in asked for name in M_DIALS):
        profile = {name: value for name, value in profile.items() if name not in M_DIALS}
    return profile | asked


def _check_photos(wish: Wish, dials: Any) -> None:
    """Refuses photos that would be ignored, and a card or a strength that has none."""
    from components.inference import Consent

    photos, cards = wish.subject.photos, wish.subject.cards
    if dials.strength and not photos:
        raise ValueError("--strength starts from a photo: give --photo, beside --card if you like")
    if photos and cards and not dials.strength:
        raise ValueError("--photo and --card both say who is meant: give one, or --strength to start from it")
    if (wish.save_card is not None or wish.keep_card) and cards:
        raise ValueError("--save-card and --keep-card keep the card of a photo: give --photo, and no --card")
    if wish.save_card is not None or wish.keep_card:
        Consent.of(wish.subject.consent).check_named()
    if wish.num_images < 1 or not 0 <= wish.seed < 2**32:
        found = f"{wish.num_images} and {wish.seed}"
        raise ValueError(f"--num-images is 1 or more and --seed 0 to {2**32 - 1}; found {found}")


def export_one(subject: Subject, out: Path, m: int | None = None) -> list[Path]:
    """Writes a person as files that stock diffusers loads by itself, and returns the files.

    Args:
        subject: Who: one person.
        out: Folder of the files.
        m: How many pseudo-words; None takes all.

    Raises:
        ValueError: As `personalize_one`, or the adapter has too many visual tokens for an exact export.
    """
    from components.inference import export_for_diffusers

    subject.check()
    if bool(subject.photos) == bool(subject.cards) or len(subject.cards) > 1:
        raise ValueError("an export is of one person: give --photo or one --card")
    personalizer = load_personalizer(subject.config(), subject.model, cards_only=bool(subject.cards))
    card = subject.persons(personalizer)[0]
    return export_for_diffusers(personalizer.attachment.adapter, card, out, m)


def load_personalizer(config: PipelineConfig, model: str | None, cards_only: bool = False) -> "Personalizer":
    """Returns the tool for the adapter's file, or for the registered model.

    As long as there is no champion, the adapter that comes with the portrait base draws with that base.
    """
    from components.face import FaceConfig
    from components.inference import Personalizer
    from components.model import ModelConfig

    load = partial(
        Personalizer.load,
        runtime=config.runtime,
        rules=config.batch.photo_rules,
        cards_only=cards_only,
        provenance=config.batch.provenance,
    )
    found = None if _is_file(model) else _registered(config, model)
    if found is None:
        path = Path(model) if model else SHIPPED_ADAPTER
        if not path.is_file():
            raise ValueError(f"no adapter at {path}")
        return load(path, config.model, config.face)
    return load(
        found.adapter,
        ModelConfig.parse(found.model, source=found.model_uri),
        FaceConfig.parse(found.face, source=found.model_uri),
        model_version=found.model_uri,
    )


def _is_file(model: str | None) -> bool:
    return model is not None and not model.startswith("models:/")


def _registered(config: PipelineConfig, model: str | None) -> "ResolvedModel | None":
    """The registered model; None where no champion is, and an adapter comes with the base."""
    from components.registry import NoVersion
    from components.registry import resolve as look_up

    try:
        return look_up(config.tracking, config.registry.model_name, model or config.registry.alias)
    except NoVersion:
        if model is not None or Path(config.model.base) != SHIPPED_BASE or not SHIPPED_ADAPTER.is_file():
            raise
        print("no champion yet: the adapter that comes with the portrait base draws", file=sys.stderr)
        return None
