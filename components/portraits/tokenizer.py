"""A CLIP tokenizer of our own: the world's words are whole tokens, the rest byte-level pieces.

Inside: the word list, a small byte-pair-encoding trainer, and the writer of a stock `CLIPTokenizer` folder.
Training byte-pair merges on the word list until nothing is left to merge makes every listed word one token;
a word that is not listed becomes pieces, down to single bytes, so no text is ever lost to an unknown token.
"""

import json
from collections import Counter
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"

WORDS = """
a an and are as at back be big both bright by clear dark day face faces for from front full good has have he
her high hair his holding image in is it its large left light long looking low man men middle more mouth
near neutral no not nothing of old on one open or out over own painting person photo picture plain portrait
quality right round she short side sideways simple slightly small smooth soft some square straight style
tall the their they thick thin this to top towards turned two up very wearing which wide with without woman
women years you young child adult aged elderly red orange yellow green blue purple pink gray grey white
black brown blond blonde hazel ginger silver golden auburn background backgrounds camera view viewer head
eyes eye eyebrows brows nose lips lip chin cheek cheeks cheekbones jaw ears forehead skin beard stubble
moustache mustache goatee freckles freckled mole moles wrinkles lines bald balding shaved glasses spectacles
frames rimmed hat cap beanie brimmed shirt clothes sweater scarf collar neck shoulders smile smiling smiles
serious frown frowning sad happy laughing surprised calm winking blinking closed expression curly wavy afro
fringe bangs bun parted part receding shoulder length ponytail braid tied hairline female male fair pale tan
tanned medium deep olive warm cool narrow broad oval heart shaped pointed lit lighting shadow sunlight dim
studio soft harsh window lamp noon evening facing profile close closeup upward downward looks gaze upwards
downwards wears sitting standing garden beach street city forest snow room wall sky sea water mountain
drawing sketch cartoon oil watercolor pencil pixel poster vintage modern color colour colours colors colored
coloured bushy arched flat rosy gold set full-faced slim heavy pretty handsome beautiful cute tired friendly
angry
"""


def word_list() -> tuple[str, ...]:
    """Every word that is one token, lower case, in a fixed order without repeats."""
    return tuple(dict.fromkeys(word for word in WORDS.replace("-", " ").split()))


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, in byte order: the GPT-2 table that CLIP uses.

    Source: `bytes_to_unicode` of the GPT-2 encoder.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + n) for n in range(256))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Learns byte-pair merges until every word is one piece.

    Args:
        words: Lower-case ASCII words.

    Returns:
        Pairs in order of rank. Most frequent pair first, ties by spelling, so the result is deterministic.
    """
    split = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for pieces in split for pair in zip(pieces, pieces[1:], strict=False))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merge(pieces, best) for pieces in split]


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def write_tokenizer(folder: Path, length: int) -> int:
    """Writes `vocab.json`, `merges.txt` and the configs of a stock `CLIPTokenizer`.

    Args:
        folder: Made if missing.
        length: `model_max_length`, in tokens, start and end included.

    Returns:
        Number of tokens in the vocabulary; the end token is the last one, the start token the one before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alphabet, merges = byte_alphabet(), learn_merges(word_list())
    tokens = [
        *alphabet,
        *(letter + "</w>" for letter in alphabet),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")
    return len(vocab)
