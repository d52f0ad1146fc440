"""Attaching PhotoVerse to a stock diffusers pipeline, and the arguments that make it draw a person.

    person = attach(pipe, "adapter.safetensors")        # any Stable Diffusion pipeline of diffusers
    image = pipe(**person.inputs(["S* as an astronaut"], [card])).images[0]
    detach(pipe)                                        # the pipeline as it was, bit for bit

`inputs` returns public arguments of the pipelines only: prompt embeddings, `cross_attention_kwargs`,
guidance, steps, and a step callback if a dial follows a schedule. Everything else (schedulers, images,
masks, ControlNets) stays the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.inference.card import IdentityCard
from components.inference.conditions import (
    Persons,
    Row,
    alpha_at,
    branch_weights,
    expand_rows,
    follow_schedules,
    levels_used,
    make_rows,
    moments,
    shared_dials,
    stack_tokens,
    whole_batch,
    words_at,
)
from components.inference.config import Dials
from components.inference.consent import Consent
from components.model import (
    KeyValueCache,
    PhotoVerseAdapter,
    adapter_hash,
    encode_prompts,
    install,
    load_adapter,
    mend,
    set_lora_scale,
    uninstall,
)


def attach(pipe: Any, adapter: PhotoVerseAdapter | Path | str) -> "Attachment":
    """Turns a stock pipeline into a PhotoVerse one; called without `inputs` it draws as it did.

    After a call with `inputs`, alpha stays as that call set it, as with any LoRA; `detach` takes all away.

    Args:
        pipe: A diffusers pipeline with a `unet`, `text_encoder` and `tokenizer`. Attach before offloading it.
        adapter: A loaded adapter (moved to the UNet's device and dtype), or the path of its safetensors file.

    Raises:
        ValueError: The adapter belongs to another base, or the pipeline has one already.
    """
    if not isinstance(adapter, PhotoVerseAdapter):
        name = getattr(pipe, "name_or_path", "") or type(pipe).__name__
        adapter = load_adapter(Path(adapter), pipe.unet, pipe.text_encoder, base_name=name)
        adapter.requires_grad_(False)
    sha256 = adapter_hash(adapter)
    adapter.to(device=pipe.unet.device, dtype=pipe.unet.dtype)
    install(pipe.unet, adapter)
    set_lora_scale(pipe.unet, 0.0)
    return Attachment(pipe, adapter, sha256)


def detach(pipe: Any) -> None:
    """Takes PhotoVerse out of a pipeline: its pictures are the bare ones again, bit for bit."""
    uninstall(pipe.unet)


@dataclass(frozen=True)
class Attachment:
    """A pipeline with PhotoVerse attached.

    Attributes:
        pipe: The pipeline; its siblings that share the UNet (`Img2Img(**pipe.components)`) take `inputs` too.
        adapter: The adapter.
        adapter_hash: SHA-256 of its weights file.
    """

    pipe: Any
    adapter: PhotoVerseAdapter
    adapter_hash: str

    @property
    def base_hash(self) -> str:
        """Identity of the base model."""
        return self.adapter.fits.base_hash

    @torch.no_grad()
    def cards(
        self,
        features_BmTD: Tensor,
        consent: Consent | str = "not stated",
        expires: datetime | None = None,
        identities_BD: Tensor | None = None,
    ) -> list[IdentityCard]:
        """Makes an identity card of each photo's features (B, m, T, D_in).

        Args:
            features_BmTD: As the extractor gives them.
            consent: Who agreed to what; words alone are the purpose of an unnamed person.
            expires: From when on the cards are refused.
            identities_BD: Unit-norm embeddings of the faces, by which candidates are chosen; None leaves
                cards without.
        """
        features = features_BmTD.to(next(self.adapter.parameters()).device)
        words, tokens = self.adapter.text_words(features), self.adapter.visual_tokens(features)
        made = datetime.now(UTC)
        identities = [None] * len(words) if identities_BD is None else list(identities_BD.float().cpu())
        return [
            IdentityCard(
                w, t, self.adapter_hash, self.base_hash, Consent.of(consent), made, expires, identity=identity
            )
            for w, t, identity in zip(words.float().cpu(), tokens.float().cpu(), identities, strict=True)
        ]

    @torch.no_grad()
    def inputs(
        self,
        prompts: Sequence[str],
        persons: Sequence[Persons],
        dials: Dials | Sequence[Dials] = Dials(),  # noqa: B008 - frozen
        negative_prompts: Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        regions: Tensor | None = None,
    ) -> dict[str, Any]:
        """Returns the keyword arguments that make a pipeline draw these prompts with these persons.

        Sets alpha on the UNet, and puts back what other calls (attention slicing, another LoRA) took away.

        Args:
            prompts: B texts with S*, or S1*, S2*... for several persons.
            persons: Of each prompt; None draws without a person.
            dials: One for all, or one a prompt; those of one call share alpha, guidance, steps and strength.
            negative_prompts: One a prompt; None is empty.
            num_images_per_prompt: As the pipelines' own argument.
            regions: (B, P, h, w) in [0, 1], where each of the P persons of a prompt may act.

        Raises:
            ValueError: Lengths differ, a card is expired or of another adapter, a prompt is too long, or the
                dials of one call differ in what must be shared.
        """
        rows = make_rows(prompts, persons, dials, negative_prompts)
        for card in (card for row in rows for card in row.persons):
            card.check_date()
            card.check_fit(self.adapter_hash, self.base_hash)
        shared = shared_dials(rows)
        mend(self.pipe.unet)
        guided = shared.guidance_scale > 1
        place = self._place()
        kwargs = self._visual(rows, guided, num_images_per_prompt, regions, place)
        kwargs["kv_cache"] = cache = KeyValueCache()

        def set_alpha(progress: float) -> None:
            set_lora_scale(self.pipe.unet, alpha_at(shared, progress, self._levels))
            cache.clear()

        set_alpha(0.0)
        negative = self._encode([row.negative for row in rows]) if guided else None
        texts = [(share, self._texts(rows, share, 0)) for share in moments(rows)]

        def whole(text: Tensor) -> Tensor:
            return whole_batch(text, negative, num_images_per_prompt).to(*place)

        if shared.m_levels:
            kwargs["texts"] = [whole(self._texts(rows, 0.0, level)) for level in range(self._levels)]
        turns = [(share, whole(text)) for share, text in texts] if len(texts) > 1 else []
        callback = follow_schedules(rows, kwargs, num_images_per_prompt, set_alpha, turns)
        return {
            "prompt_embeds": texts[0][1],
            "negative_prompt_embeds": negative,
            "guidance_scale": shared.guidance_scale,
            "num_inference_steps": shared.num_inference_steps,
            "num_images_per_prompt": num_images_per_prompt,
            "cross_attention_kwargs": kwargs,
        } | ({} if callback is None else {"callback_on_step_end": callback})

    @property
    def _unet(self) -> Any:
        return getattr(self.pipe.unet, "_orig_mod", self.pipe.unet)

    @property
    def _levels(self) -> int:
        return len(self._unet.config.block_out_channels)

    def _texts(self, rows: Sequence[Row], progress: float, level: int) -> Tensor:
        """The rows' prompts with as many pseudo-words as fit one moment and level: p, (B, L, D)."""
        keep = self.adapter.keep_words
        counts = [words_at(row.dials, progress, level, self._levels) for row in rows]
        words = [[keep(card.words, m) for card in row.persons] for row, m in zip(rows, counts, strict=True)]
        return self._encode([row.prompt for row in rows], words)

    def _place(self) -> tuple[torch.device, torch.dtype]:
        """Where and in what type the UNet computes; diffusers walks all modules to tell: ask once a call."""
        return self.pipe._execution_device, self._unet.dtype

    def _encode(self, prompts: Sequence[str], words: Sequence[Sequence[Tensor]] | None = None) -> Tensor:
        return encode_prompts(self.pipe.tokenizer, self.pipe.text_encoder, prompts, words)

    def _visual(
        self,
        rows: Sequence[Row],
        guided: bool,
        images: int,
        regions: Tensor | None,
        place: tuple[torch.device, torch.dtype],
    ) -> dict[str, Any]:
        """Returns tokens and weights of the visual branch; the unconditional half has sigma 0 and gamma 1.

        Nothing at all is returned where nothing would act, so that the base runs as it is.
        """
        device = place[0]
        gamma, sigma = branch_weights(rows, 0.0, levels_used(rows, self._unet))
        still = not any(row.dials.gamma_schedule or row.dials.sigma_schedule for row in rows)
        if still and not sigma.any() and bool((gamma == 1).all()):
            return {}
        tokens, mask = stack_tokens(rows, self.adapter.text_width, grouped=regions is not None)
        kwargs: dict[str, Any] = {
            "visual_tokens": expand_rows(tokens.to(*place), images, guided),
            "gamma": expand_rows(gamma.to(device), images, guided, 1.0),
            "sigma": expand_rows(sigma.to(device), images, guided, 0.0),
        }
        if mask is not None:
            kwargs["visual_mask"] = expand_rows(mask.to(device), images, guided)
        if regions is not None:
            kwargs["regions"] = expand_rows(regions.to(*place), images, guided)
        return kwargs
