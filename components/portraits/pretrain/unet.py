"""Trains the UNet: text to latents, v-prediction with zero terminal SNR, one sentence in ten left empty.

Latents of all training pictures are made once and kept on disk; sentences are drawn anew at each step. The
loss counts more in the face, as the autoencoder's does, and most at the mouth: without that, glasses, beards
and smiles, which change a few latents, cost so little that the UNet draws them whatever the sentence says.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn

from components.core import Progress, atomic_path, face_weight, sha256_folder
from components.portraits.architecture import build_scheduler, build_unet
from components.portraits.pretrain.batches import FACE_WEIGHT, frame, to_m11, words
from components.portraits.pretrain.clip import load_text_encoder, load_tokenizer
from components.portraits.pretrain.fit import Task, fit
from components.portraits.pretrain.measure import GALLERY, generation_figures, name_figures
from components.portraits.pretrain.names import (
    PLACE,
    Names,
    identity_codes,
    load_names,
    said_of,
    save_names,
    spelled,
    states_of,
)
from components.portraits.pretrain.people import HELDOUT_START, TRAIN_START, People
from components.portraits.pretrain.workshop import Workshop, save_half

EMPTY = 0.1
"""Share of sentences left empty, for classifier-free guidance."""
NAMED = 0.5
"""Share of sentences that call the person by name (`names.py`)."""
SAMPLE_GUIDANCE = 3.0
MOUTH_WEIGHT = 12.0
"""A smile is four latents of 256."""
PROMPTS = (
    "a photo of a woman with long red hair and glasses, smiling, on a blue background",
    "a photo of a man with short black hair and a full beard, on a yellow background",
    "a photo of a woman with a black afro, smiling, on a pink background",
    "a photo of a man with a bald head and glasses, on a green background",
    "a photo of a woman with gray hair in a bun, on a red background",
    "a photo of a man with curly brown hair and a goatee, smiling, on a gray background",
    "a photo of a woman with shoulder-length blond hair, on a purple background",
    "a photo of a man with short white hair, glasses and a blue cap, on a white background",
    "a photo of a person",
    "dark skin, green eyes, smiling, turned to the left",
)
logger = logging.getLogger(__name__)


def train_unet(shop: Workshop) -> dict[str, float]:
    """Trains the UNet, writes `unet/` and measures its pictures."""
    torch.manual_seed(shop.seed("weights", "unet"))
    unet, text, tokenizer = start_unet(shop), load_text_encoder(shop), load_tokenizer(shop)
    scheduler: Any = DDPMScheduler.from_config(build_scheduler().config)
    (latents, weights), batch = cached_latents(shop), shop.config.unet.batch
    codes = torch.from_numpy(identity_codes(TRAIN_START, shop.people.count))
    embeddings: Any = text.get_input_embeddings()
    names = load_names(shop.out, codes.shape[1], embeddings.weight)

    def loss(rng: np.random.Generator, done: float) -> dict[str, torch.Tensor]:
        picked = shop.picks(rng, batch)
        called = names(codes[picked // shop.people.views])
        ids = spelled(tokenizer, [sentence(shop.people, index, rng) for index in picked])
        said = states_of(text, ids, called)
        clean = torch.from_numpy(latents[picked]).float()
        noise = torch.randn_like(clean)
        timesteps = stratified_timesteps(rng, batch, scheduler.config.num_train_timesteps)
        noisy, target = (
            scheduler.add_noise(clean, noise, timesteps),
            scheduler.get_velocity(clean, noise, timesteps),
        )
        squared = (unet(noisy, timesteps, said).sample.float() - target) ** 2
        weight = torch.from_numpy(weights[picked]).float()
        return {"loss": (weight * squared).mean(), "mse": squared.mean()}

    def look(name: str) -> None:
        pipeline = load_pipeline(shop.out, unet)
        shop.save_grid(f"unet-{name}", sample(pipeline, [*PROMPTS, *PROMPTS], 0, shop.config.sample_steps))

    task = Task("unet", nn.ModuleDict({"unet": unet, "names": names}), loss, look)
    fit(task, shop.config.unet, shop.work / "checkpoints", shop.seed("unet"), shop.config.save_every)
    save_half(unet, shop.out / "unet")
    save_names(names, shop.out)
    called = named_pictures(shop, names, min(GALLERY, shop.heldout.count))
    return generation_figures(shop) | name_figures(shop, called) | {"name_guidance": SAMPLE_GUIDANCE}


@torch.no_grad()
def named_pictures(shop: Workshop, names: Names, count: int) -> np.ndarray:
    """A picture (count, S, S, 3) of each of the first held-out people, called by name and no more."""
    pipeline = load_pipeline(shop.out)
    text, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    codes = torch.from_numpy(identity_codes(HELDOUT_START, count))
    said = states_of(text, spelled(tokenizer, [f"a photo of {PLACE}"] * count), names(codes))
    return sample(pipeline, list(said), 2, shop.config.sample_steps)


def sentence(people: People, index: int, rng: np.random.Generator) -> str:
    """What is said of a picture: nothing, a sentence with the person's name, or one without."""
    kind = rng.random()
    if kind < EMPTY:
        return ""
    return said_of(people, index, rng) if kind < EMPTY + NAMED else words(people, index, rng)


def start_unet(shop: Workshop) -> Any:
    """An untrained UNet, or one that goes on from the base folder's where the config says so; float32.

    The base folder's may lack blocks that the architecture has: these begin without a voice (their last layer
    is zero), so that the UNet gives at first what the one before gave.

    Raises:
        ValueError: The base folder's has blocks that the architecture lacks.
    """
    unet = build_unet(shop.config.architecture)
    if not shop.config.go_on:
        return unet
    logger.info("unet begins with the weights of %s", shop.out)
    before: Any = UNet2DConditionModel.from_pretrained(
        shop.out / "unet", torch_dtype=torch.float32, local_files_only=True
    )
    new, lost = unet.load_state_dict(before.state_dict(), strict=False)
    if lost:
        raise ValueError(
            f"the UNet in {shop.out} has {len(lost)} weights that the architecture has no place for, first "
            f"{lost[0]}: give it all blocks of that one, or train without --go-on"
        )
    for name, parameter in unet.named_parameters():
        if name in new and ".proj_out." in name:
            nn.init.zeros_(parameter)
    return unet


def stratified_timesteps(rng: np.random.Generator, batch: int, count: int) -> torch.Tensor:
    """(B,) int64 timesteps, one from each of B equal ranges: a calmer loss than B free draws."""
    return torch.from_numpy(((rng.permutation(batch) + rng.random(batch)) / batch * count).astype(np.int64))


@torch.no_grad()
def cached_latents(shop: Workshop) -> tuple[np.ndarray, np.ndarray]:
    """Scaled latents of a frame of each training picture, made once, and what each place weighs.

    Returns:
        float16 (N, C, h, w) latents and (N, 1, h, w) weights of mean 1, see `face_weight`.
    """
    mark = sha256_folder(shop.out / "vae")[:12]
    paths = shop.work / f"latents-{mark}.npy", shop.work / f"weights-{mark}-{MOUTH_WEIGHT:g}.npy"
    if not all(path.is_file() for path in paths):
        for path, array in zip(paths, _encode_all(shop), strict=True):
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, array)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r")


def _encode_all(shop: Workshop) -> tuple[np.ndarray, np.ndarray]:
    vae = load_vae(shop.out)
    rng, latents, weights, count = shop.generator("frames"), [], [], len(shop.people)
    with Progress("latents", count, "pictures") as progress:
        for start in range(0, count, 32):
            indices = range(start, min(start + 32, count))
            frames = [frame(shop.people, index, shop.size, rng) for index in indices]
            encoded = vae.encode(to_m11([picture for picture, _ in frames])).latent_dist.sample()
            latents.append((encoded * vae.config.scaling_factor).half().numpy())
            shrink, places = encoded.shape[-1] / shop.size, np.stack([landmarks for _, landmarks in frames])
            places = (places + 0.5) * shrink - 0.5
            weight = face_weight(places, encoded.shape[-1], FACE_WEIGHT, MOUTH_WEIGHT)
            weights.append(weight.astype(np.float16))
            progress.advance(len(indices))
    return np.concatenate(latents), np.concatenate(weights)


def load_vae(base: Path) -> Any:
    """The autoencoder of a base folder, float32 and frozen."""
    vae: Any = AutoencoderKL.from_pretrained(base / "vae", torch_dtype=torch.float32, local_files_only=True)
    return vae.eval().requires_grad_(False)


def load_pipeline(base: Path, unet: nn.Module | None = None) -> Any:
    """The stock pipeline of a base folder, float32, with another UNet if one is given."""
    given = {"unet": unet} if unet is not None else {}
    pipeline: Any = StableDiffusionPipeline.from_pretrained(
        base, torch_dtype=torch.float32, local_files_only=True, **given
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def sample(
    pipeline: Any,
    prompts: list[str] | list[torch.Tensor],
    seed: int,
    steps: int = 20,
    guidance: float = SAMPLE_GUIDANCE,
) -> np.ndarray:
    """Pictures (B, H, W, 3) uint8, one a prompt; picture i depends on (seed, i) alone.

    Args:
        pipeline: Stock.
        prompts: Sentences, or their last hidden states (L, D).
        seed: Root of the starting noise.
        steps: Denoising steps.
        guidance: Guidance scale.
    """
    pictures = []
    for start in range(0, len(prompts), 50):
        some = prompts[start : start + 50]
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + start + i) for i in range(len(some))]
        images = pipeline(
            **_asked(pipeline, some),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="np",
        ).images
        pictures.append((images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def _asked(pipeline: Any, prompts: list[str] | list[torch.Tensor]) -> dict[str, Any]:
    """The pipeline's arguments for sentences, or for their states."""
    if isinstance(prompts[0], str):
        return {"prompt": prompts}
    empty, _ = pipeline.encode_prompt("", "cpu", len(prompts), False)
    return {"prompt_embeds": torch.stack(prompts), "negative_prompt_embeds": empty}
