"""Who moved the champion, when and why: an append-only list kept with the registered model itself.

Each entry is a tag of the registered model, whose key holds the time: nothing is overwritten, and whoever
sees the registry sees its history.
"""

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from typing import Literal

from components.core import StrictConfig
from components.registry.store import Store

PREFIX = "photoverse.audit."
LONGEST = 4500
"""MLflow keeps 5,000 characters of a tag."""


class Entry(StrictConfig):
    """One decision.

    Attributes:
        at: When, UTC, ISO 8601.
        who: Who ran the command or the flow.
        action: What was done.
        version: The version that it was about.
        champion: The champion afterwards; None while there is none.
        before: The champion before; None where there was none.
        reasons: Of the gate, or of the person.
    """

    at: str
    who: str
    action: Literal["promoted", "registered", "promoted by hand", "rolled back"]
    version: str
    champion: str | None
    before: str | None
    reasons: tuple[str, ...] = ()


def whoami() -> str:
    """Returns user and machine of this process, as an audit names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def now() -> str:
    """Returns the time as the audit writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def write_entry(store: Store, entry: Entry) -> None:
    """Adds an entry; reasons that do not fit are cut, and say so."""
    reasons = [reason[:400] for reason in entry.reasons]
    while len(text := _text(entry, reasons)) > LONGEST:
        reasons = [*reasons[:-2], "..."]
    store.client.set_registered_model_tag(store.name, f"{PREFIX}{entry.at}", text)


def _text(entry: Entry, reasons: list[str]) -> str:
    return json.dumps(entry.model_dump(mode="json") | {"reasons": reasons})


def read_entries(store: Store) -> list[Entry]:
    """Returns the list, oldest first; empty where the model is not registered yet."""
    if not store.versions():
        return []
    tags = store.client.get_registered_model(store.name).tags
    found = sorted((key, value) for key, value in tags.items() if key.startswith(PREFIX))
    return [Entry.parse(json.loads(value), source=key) for key, value in found]
