"""The engine of a served model: jobs of different people and prompts, drawn together.

Each job ends as pictures or as its own fault; the others of the same call are drawn all the same.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.registry.package import Package
from components.registry.request import Request
from components.registry.surroundings import Surroundings

if TYPE_CHECKING:
    from components.inference import Blocked, CardStore, Dials, IdentityCard, Personalizer


@dataclass(frozen=True)
class Job:
    """A checked request, its photo unpacked.

    Attributes:
        request: What is asked for.
        photo_uint8: (H, W, 3) RGB; None where the request names a card.
    """

    request: Request
    photo_uint8: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Drawn:
    """The pictures of a job.

    Attributes:
        pictures: With their recipes.
        similarity: Of each picture to the photo, where that was asked for; None for one without a face.
        seconds: How long each part took: "person" (photo to card), "drawing" (of the whole call).
    """

    pictures: Sequence[Image.Image]
    similarity: Sequence[float | None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)


Result = Drawn | Exception
"""A ValueError is the caller's fault, another exception ours."""


class Engine(Protocol):
    """Makes pictures."""

    def __call__(self, jobs: Sequence[Job]) -> Sequence[Result]:
        """Returns the pictures of each job, or what went wrong with it."""
        ...


@dataclass(frozen=True)
class _Ready:
    """A job with its person: what `Personalizer.generate` wants, and how long it took to get there."""

    job: Job
    card: "IdentityCard"
    dials: "Dials"
    start: Image.Image | None
    seconds: float


class PersonalizerEngine:
    """The engine of a package: `components.inference` on a stock pipeline.

    Args:
        personalizer: Base, adapter and face tools.
        dials: The model's own dials, which a request's are laid over.
        cards: The kept cards that requests may name; None knows none.
        batch_size: Pictures that are denoised together.
    """

    def __init__(
        self,
        personalizer: "Personalizer",
        dials: dict[str, Any],
        cards: "CardStore | None" = None,
        batch_size: int = 8,
    ) -> None:
        self._personalizer, self._dials, self._cards = personalizer, dials, cards
        self._batch_size = batch_size

    def __call__(self, jobs: Sequence[Job]) -> list[Result]:
        """Draws all jobs together; if that fails, each on its own, to find whose fault it is."""
        ready = [self._guarded(self._prepare, job) for job in jobs]
        fit = [i for i, found in enumerate(ready) if isinstance(found, _Ready)]
        results: list[Any] = list(ready)
        for i, result in zip(fit, self._together([results[i] for i in fit]), strict=True):
            results[i] = self._finish(jobs[i], result)
        return results

    def _prepare(self, job: Job) -> _Ready:
        from components.inference import Dials

        begin = time.perf_counter()
        request = job.request
        asked = request.dials.model_dump(exclude_none=True) | (
            {"strength": request.strength} if request.strength is not None else {}
        )
        dials = Dials.parse(self._dials | asked, source="dials")
        if job.photo_uint8 is None:
            if self._cards is None or request.card is None:
                raise ValueError("card: no cards are kept here; send a photo")
            card, start = self._cards.load(request.card), None
        else:
            assert request.consent is not None
            if self._cards is not None:
                self._cards.check_not_withdrawn(request.consent)
            card = self._personalizer.card(job.photo_uint8, consent=request.consent)
            start = self._personalizer.start_image(job.photo_uint8) if dials.strength else None
        # What is the caller's fault shows here, one request at a time, and not in the middle of a batch.
        self._personalizer.attachment.inputs([request.prompt], [card], dials, [request.negative_prompt])
        return _Ready(job, card, dials, start, time.perf_counter() - begin)

    def _together(self, ready: Sequence[_Ready]) -> list[Result]:
        if not ready:
            return []
        try:
            return self._draw(ready)
        except Exception as error:  # noqa: BLE001 - whatever it is, only the job it belongs to may fail
            if len(ready) == 1:
                return [error]
            return [self._together([one])[0] for one in ready]

    def _draw(self, ready: Sequence[_Ready]) -> list[Result]:
        begin = time.perf_counter()
        each = [(one, seed) for one in ready for seed in one.job.request.seeds]
        images = iter(
            self._personalizer.generate_each(
                [one.card for one, _ in each],
                [one.job.request.prompt for one, _ in each],
                [seed for _, seed in each],
                [one.dials for one, _ in each],
                [one.job.request.negative_prompt for one, _ in each],
                [one.start for one, _ in each],
                batch_size=self._batch_size,
            )
        )
        pictures = [[next(images) for _ in one.job.request.seeds] for one in ready]
        seconds = time.perf_counter() - begin
        return [self._drawn(one, drawn, seconds) for one, drawn in zip(ready, pictures, strict=True)]

    @staticmethod
    def _drawn(one: _Ready, pictures: "list[Image.Image | Blocked]", seconds: float) -> Result:
        from components.inference import Blocked, BlockedError

        if blocked := [picture.seed for picture in pictures if isinstance(picture, Blocked)]:
            return BlockedError(blocked)
        shown = [picture for picture in pictures if not isinstance(picture, Blocked)]
        return Drawn(shown, None, {"person": one.seconds, "drawing": seconds})

    def _finish(self, job: Job, result: Result) -> Result:
        """Adds what comes after drawing: the similarity, and the use of a card in the audit log."""
        if isinstance(result, Exception):
            return result
        if job.request.card is not None and self._cards is not None:
            self._cards.used(job.request.card, "served", len(result.pictures))
        if not job.request.similarity or job.photo_uint8 is None:
            return result
        try:
            found = self._personalizer.similarity(job.photo_uint8, list(result.pictures))
        except ValueError:  # the photo has a face, else there were no pictures
            return ValueError("similarity: this model has no identity network")
        return replace(result, similarity=found)

    @staticmethod
    def _guarded(do: Any, job: Job) -> Any:
        try:
            return do(job)
        except Exception as error:  # noqa: BLE001 - as above
            return error


def load_engine(
    package: Package, model_uri: str, around: Surroundings, batch_size: int = 8
) -> PersonalizerEngine:
    """Loads the base and the adapter of a package.

    Args:
        package: What is served.
        model_uri: What to write into pictures.
        around: Kept cards, mark and signature.
        batch_size: Pictures that are denoised together.

    Settings are stored as plain values; `validate_call` builds from them what the loader's signature asks
    for. A photo of several people is refused: nobody is drawn who was not meant.
    """
    from pydantic import validate_call

    from components.inference import Personalizer, PhotoRules

    personalizer = validate_call(Personalizer.load)(
        adapter=package.adapter,
        model=package.model,  # type: ignore[arg-type]
        face=package.face,  # type: ignore[arg-type]
        rules=PhotoRules(several_faces="reject"),
        model_version=model_uri,
        provenance=around.provenance,
    )
    personalizer.attachment.pipe.set_progress_bar_config(disable=True)
    return PersonalizerEngine(personalizer, package.dials, around.cards, batch_size)
