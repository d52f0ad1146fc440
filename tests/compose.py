"""Reads infra/compose/compose.yaml as Docker Compose would: variables filled in, extensions merged."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from flows.environment import PROJECT

FOLDER = PROJECT / "infra" / "compose"
VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


@dataclass(frozen=True)
class Compose:
    """The file with its values."""

    values: dict[str, str]
    services: dict[str, Any]
    volumes: dict[str, Any]
    configs: dict[str, Any]

    @classmethod
    def load(cls, values: dict[str, str]) -> "Compose":
        """Fills in the values; raises ValueError, in the file's words, for a demanded one that is empty."""

        def fill(match: re.Match[str]) -> str:
            name, how, text = match.groups()
            value = values.get(name, "")
            if not value and how == ":?":
                raise ValueError(text)
            return value or (text if how == ":-" else "")

        raw = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
        # comments may speak of variables; they are no part of the file
        lines = [line for line in raw.splitlines() if not line.lstrip().startswith("#")]
        document = yaml.safe_load(VARIABLE.sub(fill, "\n".join(lines)))
        return cls(values, document["services"], document["volumes"], document["configs"])

    def environment(self, service: str) -> dict[str, str]:
        """Returns a service's variables as text."""
        return {name: str(value) for name, value in self.services[service].get("environment", {}).items()}


def example_values(*, empty: bool = False) -> dict[str, str]:
    """Returns the variables of example.env, each with a value of its own unless `empty`."""
    text = (FOLDER / "example.env").read_text(encoding="utf-8")
    names = re.findall(r"^(\w+)=$", text, re.M)
    return {
        name: "" if empty else f"{number:02d}{name.encode().hex()[:22]}" for number, name in enumerate(names)
    }
