"""PhotoVerse at work: attach it to a stock pipeline, make identity cards, draw pictures, one or a file full.

Names are loaded when first used, so that whoever needs only the settings never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.inference.attachment import Attachment, attach, detach
    from components.inference.audit import AuditLog, AuditRow
    from components.inference.batch import personalize_batch
    from components.inference.card import IdentityCard, combine_cards
    from components.inference.config import BatchConfig, Dials, PhotoRules, ProvenanceConfig
    from components.inference.consent import Consent
    from components.inference.export import export_for_diffusers
    from components.inference.inspect import Inspection, inspect_picture
    from components.inference.ledger import Ledger, LedgerRow
    from components.inference.people import CardStore, Forgotten, KeptCard, forget_person
    from components.inference.personalize import Personalizer
    from components.inference.photo import FaceError
    from components.inference.provenance import encode_jpeg, encode_png, read_recipe, save_jpeg, save_png
    from components.inference.safety import Blocked, BlockedError
    from components.inference.watermark import embed_watermark, has_watermark, watermark_score

_HOME = {
    "Attachment": "attachment",
    "AuditLog": "audit",
    "AuditRow": "audit",
    "BatchConfig": "config",
    "Blocked": "safety",
    "BlockedError": "safety",
    "CardStore": "people",
    "Consent": "consent",
    "Dials": "config",
    "FaceError": "photo",
    "Forgotten": "people",
    "IdentityCard": "card",
    "Inspection": "inspect",
    "KeptCard": "people",
    "Ledger": "ledger",
    "LedgerRow": "ledger",
    "Personalizer": "personalize",
    "PhotoRules": "config",
    "ProvenanceConfig": "config",
    "attach": "attachment",
    "combine_cards": "card",
    "detach": "attachment",
    "embed_watermark": "watermark",
    "encode_jpeg": "provenance",
    "encode_png": "provenance",
    "export_for_diffusers": "export",
    "forget_person": "people",
    "has_watermark": "watermark",
    "inspect_picture": "inspect",
    "personalize_batch": "batch",
    "read_recipe": "provenance",
    "save_jpeg": "provenance",
    "save_png": "provenance",
    "watermark_score": "watermark",
}

__all__ = [
    "Attachment",
    "AuditLog",
    "AuditRow",
    "BatchConfig",
    "Blocked",
    "BlockedError",
    "CardStore",
    "Consent",
    "Dials",
    "FaceError",
    "Forgotten",
    "IdentityCard",
    "Inspection",
    "KeptCard",
    "Ledger",
    "LedgerRow",
    "Personalizer",
    "PhotoRules",
    "ProvenanceConfig",
    "attach",
    "combine_cards",
    "detach",
    "embed_watermark",
    "encode_jpeg",
    "encode_png",
    "export_for_diffusers",
    "forget_person",
    "has_watermark",
    "inspect_picture",
    "personalize_batch",
    "read_recipe",
    "save_jpeg",
    "save_png",
    "watermark_score",
]


def __getattr__(name: str) -> Any:
    """Loads the file that a public name lives in."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
