"""Identity cards: what PhotoVerse knows of a person, made once and used without the photo.

A card holds the person's pseudo-words and visual tokens, the hashes of adapter and base that they mean
something to, and the consent that it rests on. It holds no photo; still it is personal data.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from components.core import write_bytes_atomic
from components.inference.consent import Consent

FORMAT = "photoverse-card"
SCHEMA = 2
"""2 since the consent says who, when and for what; cards of schema 1, which held words alone, still load."""
CARD_FACTS = {"adapter_hash", "base_hash", "consent", "created", "expires", "photos"}


@dataclass(frozen=True)
class IdentityCard:
    """One person, ready for prompts.

    Attributes:
        words: (m, D) pseudo-words p_f, shallow layers first; float32, on the CPU.
        visual_tokens: (N_f, D) f; float32, on the CPU.
        adapter_hash: SHA-256 of the adapter's weights.
        base_hash: Identity of the base model.
        consent: What the person agreed to: who, when, for what.
        created: When, with time zone.
        expires: From when on the card is refused; None is never.
        photos: How many photos it was made from.
        identity: (D_id,) unit-norm embedding of the photo's face by the identity network of the adapter's
            run, float32; what candidates are compared with. None where there was no such network.
    """

    words: Tensor
    visual_tokens: Tensor
    adapter_hash: str
    base_hash: str
    consent: Consent
    created: datetime
    expires: datetime | None = None
    photos: int = 1
    identity: Tensor | None = None

    def save(self, path: Path) -> Path:
        """Writes the card as one safetensors file, its facts in the header.

        Raises:
            ValueError: The path does not end in .safetensors.
        """
        from safetensors.torch import save

        if path.suffix != ".safetensors":
            raise ValueError(f"an identity card is a .safetensors file, found {path.name!r}")
        tensors = {"words": self.words.contiguous(), "visual_tokens": self.visual_tokens.contiguous()}
        if self.identity is not None:
            tensors["identity"] = self.identity.contiguous()
        write_bytes_atomic(path, save(tensors, metadata={"card": json.dumps(self._facts())}))
        return path

    @classmethod
    def load(cls, path: Path, now: datetime | None = None) -> "IdentityCard":
        """Reads a card.

        Raises:
            ValueError: There is none, it is damaged or of another schema, or it has expired.
        """
        from safetensors import safe_open

        if not path.is_file():
            raise ValueError(f"no identity card at {path}")
        facts = cls.read_facts(path)
        with safe_open(path, framework="pt") as file:
            names = ["words", "visual_tokens", *({"identity"} & set(file.keys()))]
            tensors = {name: file.get_tensor(name) for name in names}
        card = cls(**tensors, **facts)
        card.check_date(now)
        return card

    @staticmethod
    def read_facts(path: Path) -> dict[str, Any]:
        """Returns all fields but the tensors, which are not read: who, until when, of which model.

        Raises:
            ValueError: It is no card, is damaged or of a newer schema.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                facts = json.loads((file.metadata() or {}).get("card", "{}"))
        except (SafetensorError, OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
        if facts.get("format") != FORMAT or facts.get("schema_version") not in (1, SCHEMA):
            raise ValueError(f"{path} is no identity card of schema 1 or {SCHEMA}")
        if missing := CARD_FACTS - facts.keys():
            raise ValueError(f"{path} is damaged: its header lacks {', '.join(sorted(missing))}")
        created, expires = datetime.fromisoformat(facts["created"]), facts["expires"]
        consent = facts["consent"]
        if isinstance(consent, str):
            consent = Consent.of(consent.strip() or "not stated", given=created.date())
        return {
            "adapter_hash": facts["adapter_hash"],
            "base_hash": facts["base_hash"],
            "consent": Consent.model_validate(consent),
            "created": created,
            "expires": None if expires is None else datetime.fromisoformat(expires),
            "photos": facts["photos"],
        }

    def check_date(self, now: datetime | None = None) -> None:
        """Raises a ValueError if the card has expired."""
        if self.expires is not None and (now or datetime.now(UTC)) >= self.expires:
            raise ValueError(f"this identity card expired on {self.expires:%Y-%m-%d %H:%M %Z}")

    def check_fit(self, adapter_hash: str, base_hash: str) -> None:
        """Raises a ValueError if the card was made for another adapter or base, where it means nothing."""
        for what, ours, theirs in (
            ("base", self.base_hash, base_hash),
            ("adapter", self.adapter_hash, adapter_hash),
        ):
            if ours != theirs:
                raise ValueError(
                    f"this identity card was made for the {what} {ours[:16]}, not for {theirs[:16]}"
                )

    def _facts(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "schema_version": SCHEMA,
            "adapter_hash": self.adapter_hash,
            "base_hash": self.base_hash,
            "consent": self.consent.model_dump(mode="json"),
            "created": self.created.isoformat(),
            "expires": None if self.expires is None else self.expires.isoformat(),
            "photos": self.photos,
        }


def combine_cards(cards: Sequence[IdentityCard], how: Literal["mean", "stack"] = "mean") -> IdentityCard:
    """Makes one card of several of the same person.

    Args:
        cards: One a photo, of one adapter.
        how: "mean" averages words and visual tokens; "stack" averages the words and keeps all visual tokens
            side by side, so that attention can choose among the photos. Identities are averaged either way.

    Raises:
        ValueError: There is none, or they are of different adapters.
    """
    if not cards:
        raise ValueError("an identity card needs at least one photo")
    first = cards[0]
    for card in cards:
        card.check_fit(first.adapter_hash, first.base_hash)
    visual = torch.stack([card.visual_tokens for card in cards])
    identities = [card.identity for card in cards if card.identity is not None]
    return replace(
        first,
        identity=F.normalize(torch.stack(identities).mean(0), dim=0) if identities else None,
        words=torch.stack([card.words for card in cards]).mean(0),
        visual_tokens=visual.mean(0) if how == "mean" else visual.flatten(0, 1),
        photos=sum(card.photos for card in cards),
    )
