"""Photos and prompts -> pictures: a base, an adapter and the face tools in one object.

Each picture has its own random generator: picture i of a call never depends on the others, whatever the
batch.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from components.core import Progress, RuntimeConfig, pick_device, pick_dtype
from components.face import FaceConfig, load_detector, load_masker
from components.inference.attachment import attach
from components.inference.card import IdentityCard, combine_cards
from components.inference.conditions import Persons, Row, make_rows, shared_key
from components.inference.config import Dials, PhotoRules, ProvenanceConfig
from components.inference.consent import Consent
from components.inference.credentials import load_seal
from components.inference.drawer import Drawer, candidates_of
from components.inference.likeness import Likeness, pixels
from components.inference.photo import PhotoLike, crop_identity, crop_start, find_face, read_photo
from components.inference.provenance import recipe, with_recipe
from components.inference.safety import Blocked, BlockedError, SafetyCheck, load_safety_check
from components.inference.watermark import embed_watermark
from components.model import (
    FeatureExtractor,
    ModelConfig,
    PhotoVerseAdapter,
    load_extractor,
    load_pipeline,
    read_adapter_card,
)


class Personalizer:
    """Makes identity cards of photos, and pictures of cards.

    Args:
        pipe: A stock `StableDiffusionPipeline`; the adapter is attached to it.
        adapter: A loaded adapter, or the path of its safetensors file.
        extractor: Features of the image encoder that belongs to the adapter; None if only finished identity
            cards will be used.
        face: Detector and mask, as in preparation.
        rules: Crops and limits, as in preparation.
        model_version: What to write into pictures, e.g. "models:/photoverse/3".
        provenance: Mark and signature of the pictures.
        safety_check: Says which pictures must be blocked; None lets all pass.
    """

    def __init__(
        self,
        pipe: Any,
        adapter: PhotoVerseAdapter | Path,
        extractor: FeatureExtractor | None,
        face: FaceConfig | None = None,
        rules: PhotoRules | None = None,
        model_version: str = "unregistered",
        provenance: ProvenanceConfig | None = None,
        safety_check: SafetyCheck | None = None,
    ) -> None:
        self.attachment = attach(pipe, adapter)
        if extractor is not None:
            self.attachment.adapter.fits.check_image_encoder("the one given", extractor.image_encoder)
        self._extractor, self.face, self.rules = extractor, face or FaceConfig(), rules or PhotoRules()
        self.model_version = model_version
        self.provenance = provenance or ProvenanceConfig()
        self._seal = load_seal(self.provenance.key_folder) if self.provenance.sign else None
        self._drawer = Drawer(self.attachment, safety_check, lambda: self._likeness, self._mark)

    @classmethod
    def load(
        cls,
        adapter: Path,
        model: ModelConfig | None = None,
        face: FaceConfig | None = None,
        runtime: RuntimeConfig | None = None,
        rules: PhotoRules | None = None,
        model_version: str = "unregistered",
        cards_only: bool = False,
        provenance: ProvenanceConfig | None = None,
    ) -> "Personalizer":
        """Loads base, image encoder and adapter.

        Args:
            adapter: The adapter's safetensors file.
            model: Where base and image encoder are; None takes what the adapter was trained on. Its other
                settings are those of the adapter, whatever is given.
            face: Detector and mask; None takes what the adapter was trained with, where its file says so.
            runtime: Device and dtype.
            rules: Crops and limits.
            model_version: What to write into pictures.
            cards_only: Load no image encoder, for identity cards that are made already.
            provenance: Mark and signature of the pictures, and whether the base's safety checker is used.

        Raises:
            ValueError: A part is missing, or the adapter belongs to another base.
        """
        runtime = runtime or RuntimeConfig()
        device = pick_device(runtime.device)
        dtype = pick_dtype(device, runtime.dtype)
        trained = read_adapter_card(adapter)
        places = {} if model is None else {"base": model.base, "image_encoder": model.image_encoder}
        config = trained.switches.model_copy(update=places)
        face = face or FaceConfig.parse(trained.training_run.get("face", {}), source=f"face of {adapter}")
        pipe = load_pipeline(config, device, dtype)
        extractor = None if cards_only else load_extractor(config, device, dtype)
        checked = (provenance or ProvenanceConfig()).safety_checker
        check = load_safety_check(config.base, device, dtype) if checked else None
        return cls(pipe, adapter, extractor, face, rules, model_version, provenance, check)

    @property
    def extractor(self) -> FeatureExtractor:
        """Features of photos; a ValueError if this was loaded for finished cards only."""
        if self._extractor is None:
            raise ValueError("no image encoder was loaded (cards_only): photos cannot become cards here")
        return self._extractor

    def card(
        self,
        photos: PhotoLike | Sequence[PhotoLike],
        consent: Consent | str = "not stated",
        expires: datetime | None = None,
        combine: Literal["mean", "stack"] = "mean",
    ) -> IdentityCard:
        """Makes the identity card of a person from one photo or several.

        Args:
            photos: Paths, file contents, RGB arrays or Pillow images.
            consent: Who agreed to what, and when; words alone are the purpose of an unnamed person.
            expires: From when on the card is refused.
            combine: How several photos make one card; see `combine_cards`.

        Raises:
            ValueError: A photo cannot be used: no picture, too large, no face, face too small.
        """
        one = isinstance(photos, Path | str | bytes | np.ndarray | Image.Image)
        seen = [self._look_at(photo) for photo in ([photos] if one else photos)]  # type: ignore
        if not seen:
            raise ValueError("an identity card needs at least one photo")
        features = [self.extractor(self.extractor.preprocess(crop[None])) for crop, _ in seen]
        found = [identity for _, identity in seen if identity is not None]
        identities = torch.from_numpy(np.stack(found)) if len(found) == len(seen) else None
        return combine_cards(
            self.attachment.cards(torch.cat(features), consent, expires, identities), combine
        )

    def identity_crop(self, photo: PhotoLike) -> np.ndarray:
        """Returns x_m of a photo: uint8 (S, S, 3) RGB."""
        return self._look_at(photo)[0]

    def _look_at(self, photo: PhotoLike) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns x_m of a photo and the identity of its face; None without an identity network."""
        image = read_photo(photo, self.rules)
        face = find_face(image, self._detector, self.rules)
        crop = crop_identity(image, face, self._masker, self.extractor, self.rules)
        likeness = self._likeness
        return crop, None if isinstance(likeness, ValueError) else likeness.embed_face(image, face)

    def start_image(self, photo: PhotoLike) -> Image.Image:
        """Returns the square around the face of a photo, as large as a picture, for image-to-image."""
        pipe = self.attachment.pipe
        size = pipe.unet.config.sample_size * pipe.vae_scale_factor
        return crop_start(read_photo(photo, self.rules), self._detector, size, self.rules)

    def similarity(self, photo: PhotoLike, pictures: Sequence[Image.Image]) -> list[float | None]:
        """Returns how alike each picture is to the photo (see `Likeness`); None where it shows no face.

        Raises:
            ValueError: The photo cannot be used, or neither face settings nor base have an identity network.
        """
        likeness = self._likeness
        if isinstance(likeness, ValueError):
            raise likeness
        return likeness(read_photo(photo, self.rules), [pixels(picture) for picture in pictures])

    @cached_property
    def _likeness(self) -> Likeness | ValueError:
        """What compares faces; where there is no identity network, the fault that says so."""
        base = Path(self.attachment.pipe.name_or_path or "nowhere")
        try:
            return Likeness.load(self.face, base if base.is_dir() else None, self._detector)
        except ValueError as fault:
            return fault

    @cached_property
    def _detector(self) -> Any:
        """Loaded at its first use: finished cards need it for candidates alone."""
        return load_detector(self.face, str(self.attachment.pipe.device))

    @cached_property
    def _masker(self) -> Any:
        return load_masker(self.face, str(self.attachment.pipe.device))

    def generate(
        self,
        persons: Sequence[Persons],
        prompts: Sequence[str],
        seeds: Sequence[int],
        dials: Dials | Sequence[Dials] = Dials(),  # noqa: B008 - frozen
        negative_prompts: Sequence[str] | None = None,
        start_images: Sequence[Image.Image | None] | None = None,
        batch_size: int = 8,
        keep_prompt: bool = False,
        progress: Progress | None = None,
    ) -> list[Image.Image]:
        """Draws one picture for each (person, prompt, seed), in their order; see `generate_each`.

        Raises:
            BlockedError: The base's safety checker blocks one of them.
            ValueError: As `generate_each`.
        """
        drawn = self.generate_each(
            persons, prompts, seeds, dials, negative_prompts, start_images, batch_size, keep_prompt, progress
        )
        blocked = [found.seed for found in drawn if isinstance(found, Blocked)]
        if blocked:
            raise BlockedError(blocked)
        return [found for found in drawn if not isinstance(found, Blocked)]

    @torch.no_grad()
    def generate_each(
        self,
        persons: Sequence[Persons],
        prompts: Sequence[str],
        seeds: Sequence[int],
        dials: Dials | Sequence[Dials] = Dials(),  # noqa: B008 - frozen
        negative_prompts: Sequence[str] | None = None,
        start_images: Sequence[Image.Image | None] | None = None,
        batch_size: int = 8,
        keep_prompt: bool = False,
        progress: Progress | None = None,
    ) -> list[Image.Image | Blocked]:
        """Draws one picture for each (person, prompt, seed), in their order.

        Args:
            persons: Card or cards of each picture; None draws without a person.
            prompts: One a picture.
            seeds: One a picture; the same seed gives the same picture, whatever stands beside it.
            dials: One for all, or one a picture. With `candidates` several are drawn for each, from seeds
                that follow from its own, and the one most like the person is kept.
            negative_prompts: One a picture; None is empty.
            start_images: For pictures whose dials have a `strength`: what to start from.
            batch_size: Pictures denoised together; pictures that differ in alpha, guidance, steps or strength
                never are.
            keep_prompt: Whether the prompts themselves go into the pictures' recipes.
            progress: Told about each finished picture.

        Returns:
            Pillow images, each marked and with its recipe in `info`; `Blocked` in place of one that the
            base's safety checker does not let pass.

        Raises:
            ValueError: Lengths differ, a card does not fit or has expired, a prompt is too long, or a picture
                with a `strength` has no start image.
        """
        rows = make_rows(prompts, persons, dials, negative_prompts)
        starts = [None] * len(rows) if start_images is None else list(start_images)
        if len(seeds) != len(rows) or len(starts) != len(rows):
            raise ValueError(f"{len(rows)} prompts, but {len(seeds)} seeds and {len(starts)} start images")
        groups: dict[Any, list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault((shared_key(row.dials), bool(row.persons)), []).append(i)
        pictures: list[Image.Image | Blocked | None] = [None] * len(rows)
        for group in groups.values():
            for at in range(0, len(group), batch_size):
                chosen = group[at : at + batch_size]
                drawn = self._drawer.best(
                    [rows[i] for i in chosen],
                    [seeds[i] for i in chosen],
                    [starts[i] for i in chosen],
                    batch_size,
                )
                for i, image in zip(chosen, drawn, strict=True):
                    facts = self._recipe(rows[i], seeds[i], keep_prompt)
                    pictures[i] = (
                        Blocked(seeds[i]) if image is None else with_recipe(image, facts, self._seal)
                    )
                if progress is not None:
                    progress.advance(len(chosen))
        return [picture for picture in pictures if picture is not None]

    def _mark(self, image: Image.Image) -> Image.Image:
        key = self.provenance.watermark_key
        return embed_watermark(image, key) if key else image

    def _recipe(self, row: Row, seed: int, keep_prompt: bool) -> dict[str, Any]:
        return recipe(
            prompt=row.prompt,
            negative_prompt=row.negative,
            seed=seed,
            dials=row.dials.model_copy(update={"candidates": candidates_of(row)}),
            adapter_hash=self.attachment.adapter_hash,
            base_hash=self.attachment.base_hash,
            model=self.model_version,
            keep_prompt=keep_prompt,
        )
