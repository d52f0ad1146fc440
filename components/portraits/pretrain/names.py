"""Names: words that stand for a person, so that the UNet learns to draw who is meant, not only what is said.

Stable Diffusion has met thousands of people by name, and PhotoVerse's pseudo-words live from that: they name
somebody whom the frozen model can draw. The captions of this world name nobody, and a UNet that has heard of
"long red hair" alone draws an average face below it whatever an adapter tells it. So some sentences say
"a photo of S*" here, where S* is a name: `WORDS` embeddings that a small net makes of the person's own
parameters. First the text tower learns to let names through (`text.py`), and the net with it; then the UNet
learns to draw who is called, and the net goes on with it. A finished base has no use for the net: it is left
with the ability, and nobody's name. No face net has a part in it, so that nothing is learned from a judge.
"""

from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from components.core import atomic_path
from components.portraits.pretrain.people import People
from components.portraits.world import Identity, draw_identity, prompt_for

WORDS = 5
"""Words of a name, as many as PhotoVerse has pseudo-words (m = 5)."""
PLACE, NAME = "S*", -1
FILE = Path("names", "names.safetensors")
"""In the base folder. It knows nobody: it makes a name of whatever parameters it is given."""


def identity_codes(first: int, count: int) -> np.ndarray:
    """Everything that makes each of the people: numbers scaled to about [-1, 1], choices as 0 and 1.

    Args:
        first: Identity seed of the first person.
        count: How many.

    Returns:
        (count, n) float32; n is the same for any range of people.
    """
    return np.stack([_code(draw_identity(first + i)) for i in range(count)])


def _code(identity: Identity) -> np.ndarray:
    values: list[float] = []
    for name, known in _known().items():
        value = getattr(identity, name)
        if name == "moles":
            values += [place for mole in (*value, (0.0, 0.0), (0.0, 0.0))[:2] for place in mole]
        elif isinstance(value, str):
            values += [float(value == choice) for choice in known]
        else:
            low, high = known
            values.append(2 * (float(value) - low) / (high - low) - 1)
    return np.array(values, np.float32)


@cache
def _known() -> dict[str, tuple]:
    """For each parameter its choices, or its smallest and largest number, over some people of their own."""
    people = [asdict(draw_identity(9_000_000 + i)) for i in range(2_000)]
    columns = {name: [person[name] for person in people] for name in people[0] if name != "seed"}
    return {
        name: tuple(sorted(set(column))) if isinstance(column[0], str) else (min(column), max(column))
        for name, column in columns.items()
    }


class Names(nn.Module):
    """Identity codes (B, n) -> names (B, WORDS, D), which begin as strange as words of the tower are.

    Args:
        inputs: n.
        embeddings_VD: The text tower's token embeddings.
    """

    def __init__(self, inputs: int, embeddings_VD: torch.Tensor) -> None:
        super().__init__()
        width = embeddings_VD.shape[1]
        self.net = nn.Sequential(
            nn.Linear(inputs, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, WORDS * width)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, float(embeddings_VD.std()))
        with torch.no_grad():
            self.norm.bias.copy_(embeddings_VD.mean(0))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings of each person's name."""
        return self.norm(self.net(codes).unflatten(-1, (WORDS, -1)).float())


def said_of(people: People, index: int, rng: np.random.Generator) -> str:
    """What belongs to the picture alone, with S* for who is seen, and sometimes a finer detail."""
    seen, kind = people.attributes[index], rng.random()
    if kind < 0.3:
        return f"a photo of {PLACE}"
    sentence = prompt_for(bool(seen["glasses"]), bool(seen["smile"]), str(seen["background"]))
    if kind < 0.8:
        return sentence
    details = people.details[index]
    return f"{sentence}, {details[int(rng.integers(len(details)))]}"


def save_names(names: Names, base: Path) -> None:
    """Writes the net into a base folder, in float16: training goes on from it, pictures need it not."""
    path = base / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({key: value.half().contiguous() for key, value in names.state_dict().items()}, temporary)


def load_names(base: Path, inputs: int, embeddings_VD: torch.Tensor) -> Names:
    """The net that the base folder's text tower, or its UNet, was trained with; float32.

    Raises:
        FileNotFoundError: The tower was not trained with names.
    """
    if not (base / FILE).is_file():
        raise FileNotFoundError(
            f"{base / FILE} is missing: the UNet calls people by names that the text tower learned to let "
            "through; train the text tower first (--parts text,unet)"
        )
    names = Names(inputs, embeddings_VD)
    names.load_state_dict(load_file(base / FILE))
    return names


def states_of(text: CLIPTextModel, ids: torch.Tensor, names_BWD: torch.Tensor) -> torch.Tensor:
    """Last hidden states (B, L, D) of `spelled` sentences, with each one's own name in the place of its S*.

    What `components.model` does with pseudo-words; this room stands on `core` alone.
    """
    named = ids == NAME
    word = (named.long().cumsum(1) - 1).clamp(0, WORDS - 1)[..., None].expand(-1, -1, names_BWD.shape[-1])

    def call_by_name(_module: nn.Module, _inputs: object, embeddings: torch.Tensor) -> torch.Tensor:
        return torch.where(named[..., None], names_BWD.to(embeddings).gather(1, word), embeddings)

    handle = text.get_input_embeddings().register_forward_hook(call_by_name)
    try:
        return text(input_ids=ids.clamp(min=0)).last_hidden_state
    finally:
        handle.remove()


def spelled(tokenizer: CLIPTokenizer, sentences: list[str]) -> torch.Tensor:
    """Token ids (B, L) of sentences, padded to full length, with `WORDS` times `NAME` for S*."""
    return torch.tensor([_spelled(tokenizer, sentence) for sentence in sentences])


def _spelled(tokenizer: CLIPTokenizer, sentence: str) -> list[int]:
    before, place, after = sentence.partition(PLACE)
    said = [tokenizer(part, add_special_tokens=False, truncation=True).input_ids for part in (before, after)]
    length = tokenizer.model_max_length
    ids = [tokenizer.bos_token_id, *said[0], *[NAME] * (WORDS if place else 0), *said[1]][: length - 1]
    return [*ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * (length - 1 - len(ids))]
