"""What a person agreed to: who, when, for what. Nothing of a person is kept without it."""

from datetime import UTC, date, datetime
from typing import Annotated, Self

from pydantic import Field, field_validator

from components.core import StrictConfig

UNNAMED = "unnamed"
PersonId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]


class Consent(StrictConfig):
    """A person's consent, stored with everything that is kept of them.

    Attributes:
        person: Who agreed: the ID by which `photoverse forget` finds what is kept. "unnamed" is for pictures
            that are drawn at once and leave nothing behind; what is kept needs a name.
        purpose: For what, in words.
        given: When.
    """

    person: PersonId = UNNAMED
    purpose: str = Field(min_length=1, max_length=500)
    given: date = Field(default_factory=lambda: datetime.now(UTC).date())

    @field_validator("purpose")
    @classmethod
    def _says_something(cls, purpose: str) -> str:
        if not purpose.strip():
            raise ValueError("is empty: say what the person agreed to")
        return purpose

    @classmethod
    def of(cls, consent: "Consent | str", given: date | None = None) -> Self:
        """Returns the consent; words alone are the purpose of an unnamed person, given today."""
        if isinstance(consent, str):
            words = {"purpose": consent} | ({} if given is None else {"given": given})
            return cls.parse(words, source="consent")
        return cls.model_validate(consent.model_dump())

    def check_named(self) -> None:
        """Refuses to keep anything of a person who could not be found again; raises ValueError."""
        if self.person == UNNAMED:
            raise ValueError("consent.person: what is kept of a person needs the person's ID")
        if self.given > datetime.now(UTC).date():
            raise ValueError(f"consent.given: {self.given} is in the future")
