"""Versioned sets of prompts: what a picture is asked for beside the person.

A set is a YAML file whose name carries its version; a changed prompt is a new version, so that figures of the
same set stay comparable.
"""

from pathlib import Path

from pydantic import Field, field_validator

from components.core import StrictConfig, load_yaml, sha256_file

FOLDER = Path(__file__).parent / "prompt_sets"
SOMEBODY = "a person"


class Prompt(StrictConfig):
    """One wish.

    Attributes:
        text: Holds S*.
        expects: Class by attribute that an attribute reader must find, e.g. {"background": "blue"}.
    """

    text: str
    expects: dict[str, str] = {}

    @field_validator("text")
    @classmethod
    def _holds_the_person(cls, text: str) -> str:
        if "S*" not in text:
            raise ValueError("must hold S*, the place of the person")
        return text

    @property
    def plain(self) -> str:
        """The wish without the person: what CLIP compares, and what the base model alone is asked."""
        return self.text.replace("S*", SOMEBODY)


class PromptSet(StrictConfig):
    """Prompts that are evaluated together.

    Attributes:
        name: As in the settings.
        version: Of the set; also the end of its file's name.
        about: One line.
        mark: Start of the file's hash.
        prompts: The wishes.
    """

    name: str
    version: int = Field(ge=1)
    about: str = ""
    mark: str = ""
    prompts: tuple[Prompt, ...] = Field(min_length=1)


def load_prompt_set(name: str) -> PromptSet:
    """Reads a set: a name in `prompt_sets/`, or the path of a YAML file of the user's own.

    Raises:
        ValueError: There is none, or it is not a valid set, or its version is not that of its name.
    """
    file = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.yaml")))
        raise ValueError(f"prompt set {name!r} is not known; known: {known}, or a YAML file's path")
    values = load_yaml(file) | {"name": file.stem, "mark": sha256_file(file)[:16]}
    found = PromptSet.parse(values, source=str(file))
    if not file.stem.endswith(f"-v{found.version}"):
        raise ValueError(f"{file} holds version {found.version}: its name must end in -v{found.version}")
    return found
