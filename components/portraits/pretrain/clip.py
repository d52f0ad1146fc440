"""Trains the two CLIP towers: pictures and their captions meet, and pictures of one person meet.

Three terms. Captions: the symmetric contrastive loss of CLIP over frames and what is said of them. Names:
each training person is a class of a cosine softmax on the unprojected image features, which makes them
carry identity (a contrast between people with one picture a step instead of pairs; the classes are thrown
away). Crops: half of the pictures are masked face crops as PhotoVerse's reference photos, which take part
in the second term alone.

Half of the patches are dropped for most of the training, which halves the cost of a step.
Source: CLIP, Radford et al. 2021; dropping patches: FLIP, Li et al. 2023. The text tower has no projection
of its own: the image tower projects to the text width.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from components.portraits.architecture import build_image_encoder, build_text_encoder
from components.portraits.pretrain.batches import frame, identity_crop, recolour, to_m11, words
from components.portraits.pretrain.fit import Task, fit
from components.portraits.pretrain.identity import ArcFace
from components.portraits.pretrain.measure import clip_figures
from components.portraits.pretrain.workshop import Workshop, save_half

NAMES_WEIGHT, MARGIN = 0.3, 0.2
DENSE_FROM = 0.75
"""Share of training after which all patches are seen."""


def train_clip(shop: Workshop) -> dict[str, float]:
    """Trains both towers, writes `text_encoder/` and `image_encoder/`, measures them on held-out people."""
    architecture, tokenizer = shop.config.architecture, load_tokenizer(shop)
    torch.manual_seed(shop.seed("weights", "clip"))
    text, vision = build_text_encoder(architecture, len(tokenizer)), build_image_encoder(architecture)
    head = nn.ModuleDict(
        {
            "temperature": Temperature(1 / 0.07),
            "narrow": nn.Linear(architecture.vision.width, architecture.face.embedding, bias=False),
            "names": ArcFace(architecture.face.embedding, shop.people.count),
        }
    )
    batch = shop.config.clip.batch

    def loss(rng: np.random.Generator, done: float) -> dict[str, torch.Tensor]:
        picked, told = shop.picks(rng, batch), batch // 2
        pictures, sentences = draw(shop, picked, told, rng)
        tokens = image_tokens(vision, pictures, keep=0.5 if done < DENSE_FROM else 1.0)
        features = vision.vision_model.post_layernorm(tokens[:, 0])
        seen = F.normalize(vision.visual_projection(features[:told]))
        said = F.normalize(text(**tokenize(tokenizer, sentences)).pooler_output)
        logits = head["temperature"](seen @ said.T)
        target = torch.arange(told)
        captions = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        people = torch.from_numpy(picked // shop.people.views)
        names = head["names"](head["narrow"](features), people, MARGIN * min(1.0, done / 0.5))
        return {"loss": captions + NAMES_WEIGHT * names, "captions": captions, "names": names}

    task = Task("clip", nn.ModuleDict({"text": text, "vision": vision, "head": head}), loss)
    fit(task, shop.config.clip, shop.work / "checkpoints", shop.seed("clip"), shop.config.save_every)
    save_half(text, shop.out / "text_encoder")
    save_half(vision, shop.out / "image_encoder")
    return clip_figures(shop, text, vision, tokenizer)


class Temperature(nn.Module):
    """The learned scale of cosines, at most 100.

    Args:
        start: Scale at the start.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(np.log(start), dtype=torch.float32))

    def forward(self, cosines: torch.Tensor) -> torch.Tensor:
        """Logits, of the shape of the cosines."""
        return cosines * self.log_scale.exp().clamp(max=100)


def draw(
    shop: Workshop, picked: np.ndarray, told: int, rng: np.random.Generator
) -> tuple[torch.Tensor, list[str]]:
    """Frames with what is said of them first, then face crops: (B, 3, H, W) and `told` sentences."""
    people, size = shop.people, shop.size
    frames = [recolour(frame(people, index, size, rng)[0], rng, 0.3) for index in picked[:told]]
    crops = [recolour(identity_crop(people, index, size, rng), rng, 0.5) for index in picked[told:]]
    return to_m11(frames + crops), [words(people, index, rng) for index in picked[:told]]


def image_tokens(
    vision: CLIPVisionModelWithProjection, images_m11: torch.Tensor, keep: float = 1.0
) -> torch.Tensor:
    """Last hidden states (B, T, D), CLS first, of a random share of the patches, the same for the batch."""
    tower = vision.vision_model
    tokens = tower.pre_layrnorm(tower.embeddings(images_m11))
    if keep < 1:
        patches = tokens.shape[1] - 1
        kept = 1 + torch.randperm(patches)[: max(1, round(keep * patches))]
        tokens = tokens[:, torch.cat([torch.zeros(1, dtype=torch.long), kept])]
    return tower.encoder(inputs_embeds=tokens).last_hidden_state


def load_tokenizer(shop: Workshop) -> CLIPTokenizer:
    """The base's own tokenizer."""
    return CLIPTokenizer.from_pretrained(shop.out / "tokenizer", local_files_only=True)


def tokenize(tokenizer: CLIPTokenizer, sentences: list[str]) -> dict[str, torch.Tensor]:
    """`input_ids` (B, L), padded to full length as Stable Diffusion pipelines do; what is too long is cut."""
    length = tokenizer.model_max_length
    tokens = tokenizer(
        sentences, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return {"input_ids": tokens.input_ids}


def load_text_encoder(shop: Workshop) -> CLIPTextModel:
    """The text tower as it stands in the base folder, float32 and frozen."""
    model = CLIPTextModel.from_pretrained(
        shop.out / "text_encoder", dtype=torch.float32, local_files_only=True
    )
    return model.eval().requires_grad_(False)
