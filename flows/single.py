"""`photoverse personalize`: one photo, one prompt, pictures, with the champion or with an adapter's file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import anchored, resolve

if TYPE_CHECKING:
    from components.inference import Personalizer


@dataclass(frozen=True)
class Wish:
    """What somebody asks for at the command line.

    Attributes:
        photo: A photo of the person.
        prompt: What to draw; S* stands for the person.
        out: The picture's file; of several, each gets a number before the suffix.
        model: An adapter's safetensors file, or a model URI; None takes the champion.
        seed: Of the first picture; the next ones count up.
        pictures: How many.
        dials: Values over the profile's, e.g. {"sigma": 0.8}.
        profile: Where base, face tools and default dials are taken from.
        root: Folder of all runs, whose registry knows the champion.
    """

    photo: Path
    prompt: str
    out: Path
    model: str | None = None
    seed: int = 0
    pictures: int = 1
    dials: dict[str, Any] = field(default_factory=dict)
    profile: str = "portraits"
    root: str = "runs"


def personalize_one(wish: Wish) -> list[Path]:
    """Draws the pictures and returns their files; each carries what made it.

    Raises:
        ValueError: No photo, no face in it, no model, or a dial out of range; the message says which.
    """
    if not wish.photo.is_file():
        raise ValueError(f"no photo at {wish.photo}")
    from components.inference import Dials, save_png

    config = anchored(resolve(wish.profile, {"root": wish.root}, name="personalize"))
    values = config.batch.dials.model_dump() | wish.dials
    dials = Dials.parse(values, source="dials")
    personalizer = load_personalizer(config, wish.model)
    card = personalizer.card(wish.photo)
    images = personalizer.generate(
        [card] * wish.pictures,
        [wish.prompt] * wish.pictures,
        seeds=[wish.seed + i for i in range(wish.pictures)],
        dials=dials,
    )
    return [save_png(image, file) for image, file in zip(images, names(wish.out, wish.pictures), strict=True)]


def load_personalizer(config: Any, model: str | None) -> "Personalizer":
    """Returns the tool for the adapter's file, or for the registered model."""
    from components.face import FaceConfig
    from components.inference import Personalizer
    from components.model import ModelConfig
    from components.registry import resolve as look_up

    rules = config.batch.photo_rules
    if model and not model.startswith("models:/"):
        if not Path(model).is_file():
            raise ValueError(f"no adapter at {model}")
        return Personalizer.load(Path(model), config.model, config.face, config.runtime, rules)
    found = look_up(config.tracking, config.registry.model_name, model or config.registry.alias)
    return Personalizer.load(
        found.adapter,
        ModelConfig.parse(found.model, source=found.model_uri),
        FaceConfig.parse(found.face, source=found.model_uri),
        config.runtime,
        rules,
        model_version=found.model_uri,
    )


def names(out: Path, count: int) -> list[Path]:
    """Returns the files of `count` pictures: `a.png`, or `a-0.png`, `a-1.png`, ..."""
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(count)]
