"""The audit log: when cards were made, used, expired and forgotten, and for what. No biometric data in it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from components.core import StrictConfig
from components.inference.journal import append_line, read_lines

Event = Literal["made", "used", "expired", "forgotten"]


class AuditRow(StrictConfig):
    """One line of the log.

    Attributes:
        at: When, with time zone.
        event: What happened.
        person: ID of the person, from the consent.
        card: ID of the card; empty where the event is about something else that was kept.
        purpose: What the consent is for ("made"), or what was done ("used": the command or service).
        pictures: How many pictures were drawn ("used"), or files removed ("forgotten").
    """

    at: datetime
    event: Event
    person: str
    card: str = ""
    purpose: str = ""
    pictures: int = Field(default=0, ge=0)


class AuditLog:
    """An append-only JSONL file; several processes may write to it at once.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, event: Event, person: str, card: str = "", purpose: str = "", pictures: int = 0) -> None:
        """Appends a row, on the disk when this returns."""
        row = AuditRow(
            at=datetime.now(UTC), event=event, person=person, card=card, purpose=purpose, pictures=pictures
        )
        append_line(self.path, json.dumps(row.model_dump(mode="json"), ensure_ascii=False))

    def rows(self, person: str | None = None) -> list[AuditRow]:
        """Returns the rows, of one person or of all, oldest first."""
        found = read_lines(self.path, AuditRow)
        return [row for row in found if person is None or row.person == person]
