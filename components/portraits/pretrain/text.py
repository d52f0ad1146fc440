"""Goes on with the text tower alone, the image tower frozen, until its states tell every word that was said.

Captions meeting pictures teach the tower what tells pictures apart: background and hair. What changes few
pixels is soon forgotten: a linear reader of its last state knew glasses no better than by their share among
people, and a UNet that listens to such states draws glasses and smiles by chance. Here the last state must
also tell which words were said (a bag of words); the padding after it, to which the UNet attends as well,
must tell the same. The contrast with pictures goes on, over image features that are made once.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from components.core import Progress, atomic_path, sha256_folder
from components.portraits.pretrain.batches import frame, to_m11, words
from components.portraits.pretrain.clip import Temperature, load_text_encoder, load_tokenizer, tokenize
from components.portraits.pretrain.fit import Task, fit
from components.portraits.pretrain.measure import clip_figures
from components.portraits.pretrain.names import (
    NAME,
    PLACE,
    WORDS,
    Names,
    identity_codes,
    said_of,
    save_names,
    spelled,
    states_of,
)
from components.portraits.pretrain.people import HELDOUT_START, TRAIN_START
from components.portraits.pretrain.workshop import Workshop, save_half

WORDS_WEIGHT = 0.1
"""Weight of the loss of words, a sum over the vocabulary, beside that of captions."""
CALLED = 4
"""One of so many pictures of a batch is also called by name."""
LEAST = 0.1
"""Smallest deviation that a parameter of a person is divided by: of some hardly anybody differs."""
RARE = -4.6
"""Log odds with which the reader of words begins: a sentence has a dozen of the thousand known words."""


def train_text(shop: Workshop) -> dict[str, float]:
    """Trains the text tower and the image tower's projection, writes both, measures the pair again."""
    torch.manual_seed(shop.seed("weights", "text"))
    vision = CLIPVisionModelWithProjection.from_pretrained(
        shop.out / "image_encoder", dtype=torch.float32, local_files_only=True
    ).eval()
    features, tokenizer = picture_features(shop, vision), load_tokenizer(shop)
    text = load_text_encoder(shop).train().requires_grad_(True)
    vocabulary, batch = text.config.vocab_size, shop.config.text.batch
    codes = torch.from_numpy(identity_codes(TRAIN_START, shop.people.count))
    reader = nn.Linear(text.config.hidden_size, vocabulary)
    nn.init.constant_(reader.bias, RARE)
    names_reader = NamesReader(codes, text.get_input_embeddings().weight)
    head = nn.ModuleDict(
        {
            "temperature": Temperature(20.0),
            "projection": vision.visual_projection,
            "words": reader,
            "names": names_reader,
        }
    )

    def loss(rng: np.random.Generator, done: float) -> dict[str, torch.Tensor]:
        picked = shop.picks(rng, batch)
        tokens = tokenize(tokenizer, [words(shop.people, index, rng) for index in picked])
        states = text(**tokens)
        seen = F.normalize(head["projection"](torch.from_numpy(features[picked]).float()).float())
        logits = head["temperature"](seen @ F.normalize(states.pooler_output.float()).T)
        target = torch.arange(batch)
        captions = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        said = said_words(tokens["input_ids"], vocabulary)
        told = [
            F.binary_cross_entropy_with_logits(head["words"](state).float(), said, reduction="sum") / batch
            for state in (states.pooler_output, states.last_hidden_state[:, -1])
        ]
        called = picked[::CALLED]
        sentences = [said_of(shop.people, index, rng) for index in called]
        names = names_reader(text, tokenizer, sentences, codes[called // shop.people.views])
        total = captions + WORDS_WEIGHT * (told[0] + told[1]) + names
        parts = {"captions": captions, "words": told[0], "words_of_padding": told[1], "names": names}
        return {"loss": total} | parts

    task = Task("text", nn.ModuleDict({"text": text, "head": head}), loss)
    fit(task, shop.config.text, shop.work / "checkpoints", shop.seed("text"), shop.config.save_every)
    save_half(text, shop.out / "text_encoder")
    save_half(vision, shop.out / "image_encoder")
    save_names(names_reader.net, shop.out)
    strangers = torch.from_numpy(identity_codes(HELDOUT_START, shop.heldout.count))
    with torch.no_grad():
        lost = names_reader(text, tokenizer, [f"a photo of {PLACE}"] * len(strangers), strangers)
    return clip_figures(shop, text, vision, tokenizer) | {"names_lost": float(lost)}


class NamesReader(nn.Module):
    """Calls people by name and reads from the tower's states who was meant.

    Args:
        codes: (P, n) of the people that training knows.
        embeddings_VD: The text tower's token embeddings.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, codes: torch.Tensor, embeddings_VD: torch.Tensor) -> None:
        super().__init__()
        self.net = Names(codes.shape[1], embeddings_VD)
        self.reader = nn.Linear(WORDS * embeddings_VD.shape[1], codes.shape[1])
        self.register_buffer("mean", codes.mean(0))
        self.register_buffer("deviation", codes.std(0).clamp(min=LEAST))

    def forward(
        self, text: CLIPTextModel, tokenizer: CLIPTokenizer, sentences: list[str], codes: torch.Tensor
    ) -> torch.Tensor:
        """The share of the codes (P, n) that the states in the places of the names do not tell: a scalar."""
        ids = spelled(tokenizer, sentences)
        states = states_of(text, ids, self.net(codes))[ids == NAME]
        read = self.reader(states.view(len(codes), -1)).float()
        return F.mse_loss(read, (codes - self.mean) / self.deviation)


def said_words(input_ids: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """(B, L) token ids to (B, vocabulary) float32: 1 where the token occurs in the sentence."""
    return torch.zeros(len(input_ids), vocabulary).scatter_(1, input_ids, 1.0)


@torch.no_grad()
def picture_features(shop: Workshop, vision: CLIPVisionModelWithProjection) -> np.ndarray:
    """float16 (N, D): the image tower's pooled state of a frame of each training picture, made once."""
    path = shop.work / f"features-{sha256_folder(shop.out / 'image_encoder')[:12]}.npy"
    if not path.is_file():
        rng, parts, count = shop.generator("frames"), [], len(shop.people)
        with Progress("picture features", count, "pictures") as progress:
            for start in range(0, count, 32):
                indices = range(start, min(start + 32, count))
                images = to_m11([frame(shop.people, index, shop.size, rng)[0] for index in indices])
                parts.append(vision.vision_model(images).pooler_output.half().numpy())
                progress.advance(len(indices))
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(parts))
    return np.load(path)
