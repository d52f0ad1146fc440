"""What the judges see in each series: identity, face, obedience to the prompt; intervals over people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.core import StrictConfig, derive_seed
from components.evaluation.clip_score import ClipScorer
from components.evaluation.config import EvaluationConfig
from components.evaluation.data import Photo
from components.evaluation.generate import Shot, load_pictures
from components.evaluation.judges import FaceFinder, Judge
from components.evaluation.obedience import AttributeReader
from components.evaluation.prompts import Prompt, PromptSet
from components.evaluation.scores import Figure, figure
from components.evaluation.series import Series


class Point(StrictConfig):
    """What was seen in a series; figures are means over people.

    Attributes:
        label: Of the series.
        pictures: Number of pictures.
        identity: Similarity to the reference by the identity judge.
        found: Share of pictures with a face.
        obeyed: Share of checkable wishes that were met; None where nothing can be checked.
        by_attribute: The same by attribute.
        clip_t: Cosine with the prompt by CLIP; None without one.
    """

    label: str
    pictures: int
    identity: Figure
    found: Figure
    obeyed: Figure | None = None
    by_attribute: dict[str, Figure] = {}
    clip_t: Figure | None = None


class Obedience(StrictConfig):
    """Obedience to all prompts.

    Attributes:
        sets: Name, version and mark of each prompt set.
        prompts: One point a prompt.
        obeyed: Over all checkable prompts.
        by_attribute: The same by attribute.
        clip_t: Over all prompts.
        base_obeyed: The base model alone, asked the same with "a person" in place of S*: what can be had.
        base_by_attribute: The same by attribute.
        base_clip_t: The base model alone by CLIP.
        reader: Mark of the attribute reader; None where the base ships none.
        clip: Which CLIP; None where none is configured.
    """

    sets: tuple[dict[str, str | int], ...]
    prompts: tuple[Point, ...]
    obeyed: Figure | None
    by_attribute: dict[str, Figure]
    clip_t: Figure | None
    base_obeyed: Figure | None
    base_by_attribute: dict[str, Figure]
    base_clip_t: Figure | None
    reader: str | None
    clip: str | None


@dataclass(frozen=True)
class Look:
    """What was seen in one picture."""

    identity: NDArray[np.float64]
    found: bool
    attributes: Mapping[str, str]
    clip: NDArray[np.float64] | None


class Looker:
    """Looks at each picture file once, whatever the number of series it belongs to.

    Args:
        config: Seeds and intervals.
        finder: Finds faces.
        judge: The identity judge.
        photos: Real photos, for the references' vectors.
        reader: Reads attributes, where there is one.
        clip: Scores prompts, where there is one.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        finder: FaceFinder,
        judge: Judge,
        photos: Sequence[Photo],
        reader: AttributeReader | None,
        clip: ClipScorer | None,
    ) -> None:
        self._config, self._finder, self._judge = config, finder, judge
        self.reader, self.clip = reader, clip
        vectors = judge([finder(photo.target_uint8, photo.landmarks_xy) for photo in photos])
        self._references = {photo.key: vector for photo, vector in zip(photos, vectors, strict=True)}
        self._looks: dict[Path, Look] = {}
        self._texts: dict[str, NDArray[np.float64]] = {}

    def point(self, series: Sequence[Series], label: str) -> Point:
        """Returns the figures over all pictures of some series."""
        shots = [shot for one in series for shot in one.shots]
        prompts = [prompt for one in series for prompt in one.prompts]
        references = [photo for one in series for photo in one.references]
        looks = self._look(shots)
        same = [
            float(look.identity @ self._references[photo.key]) if look.identity.any() else 0.0
            for look, photo in zip(looks, references, strict=True)
        ]
        people = np.array([photo.person for photo in references])
        met = [met_wishes(look.attributes, prompt) for look, prompt in zip(looks, prompts, strict=True)]
        return Point(
            label=label,
            pictures=len(shots),
            identity=self._figure(f"{label} identity", np.array(same), people, (-1.0, 1.0)),
            found=self._figure(f"{label} found", np.array([float(look.found) for look in looks]), people),
            obeyed=self._obeyed(label, [list(one.values()) for one in met], people),
            by_attribute={
                name: shown
                for name in sorted({key for one in met for key in one})
                if (shown := self._obeyed(f"{label} {name}", [_only(one, name) for one in met], people))
            },
            clip_t=self._clip_t(label, looks, prompts, people),
        )

    def _look(self, shots: Sequence[Shot]) -> list[Look]:
        new = list({shot.path: shot for shot in shots if shot.path not in self._looks}.values())
        if new:
            pictures = load_pictures(new)
            sightings = [self._finder(picture) for picture in pictures]
            vectors = self._judge(sightings)
            read = self.reader(pictures) if self.reader else [{}] * len(new)
            clips = list(self.clip.images(pictures)) if self.clip else [None] * len(new)
            for i, shot in enumerate(new):
                found = sightings[i].landmarks_xy is not None
                self._looks[shot.path] = Look(vectors[i] if found else np.zeros(1), found, read[i], clips[i])
        return [self._looks[shot.path] for shot in shots]

    def _obeyed(self, label: str, met: Sequence[Sequence[bool]], people: NDArray) -> Figure | None:
        values = np.array([np.mean(one) if one else np.nan for one in met])
        return None if np.isnan(values).all() else self._figure(f"{label} obeyed", values, people)

    def _clip_t(
        self, label: str, looks: Sequence[Look], prompts: Sequence[Prompt], people: NDArray
    ) -> Figure | None:
        if self.clip is None:
            return None
        new = sorted({prompt.plain for prompt in prompts} - set(self._texts))
        if new:
            self._texts |= dict(zip(new, self.clip.texts(new), strict=True))
        cosines = [
            float(look.clip @ self._texts[prompt.plain])
            for look, prompt in zip(looks, prompts, strict=True)
            if look.clip is not None
        ]
        return self._figure(f"{label} clip", np.array(cosines), people, (-1.0, 1.0))

    def _figure(
        self, what: str, values: NDArray, people: NDArray, bounds: tuple[float, float] = (0.0, 1.0)
    ) -> Figure:
        config = self._config
        return figure(
            values,
            people,
            seed=derive_seed(config.seed, "series", what) % 2**32,
            samples=config.bootstrap_samples,
            confidence=config.confidence,
            bounds=bounds,
        )


def met_wishes(found: Mapping[str, str], prompt: Prompt) -> dict[str, bool]:
    """Returns for each checkable wish whether the picture meets it; nothing where nobody has read it."""
    return {name: found[name] == value for name, value in prompt.expects.items() if name in found}


def _only(met: Mapping[str, bool], name: str) -> list[bool]:
    return [met[name]] if name in met else []


def judge_obedience(looker: Looker, series: Sequence[Series], sets: Sequence[PromptSet]) -> Obedience | None:
    """Returns the figures of all prompts together and one by one; None where no prompts were asked for."""
    mine = [one for one in series if one.kind == "prompt"]
    alone = [one for one in series if one.kind == "base"]
    if not mine:
        return None
    whole = looker.point(mine, "all prompts")
    base = looker.point(alone, "base model alone") if alone else None
    return Obedience(
        sets=tuple({"name": s.name, "version": s.version, "mark": s.mark} for s in sets),
        prompts=tuple(looker.point([one], one.label) for one in mine),
        obeyed=whole.obeyed,
        by_attribute=whole.by_attribute,
        clip_t=whole.clip_t,
        base_obeyed=base.obeyed if base else None,
        base_by_attribute=base.by_attribute if base else {},
        base_clip_t=base.clip_t if base else None,
        reader=looker.reader.mark if looker.reader else None,
        clip=looker.clip.name if looker.clip else None,
    )


def judge_curve(looker: Looker, series: Sequence[Series]) -> dict[str, list[Point]]:
    """Returns the points of each swept dial, in the order of the settings."""
    curve: dict[str, list[Point]] = {}
    for one in series:
        if one.kind not in ("prompt", "base", "protocol"):
            curve.setdefault(one.kind, []).append(looker.point([one], one.label))
    return curve
