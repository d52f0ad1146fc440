"""PhotoVerse as files that stock diffusers loads by itself: a LoRA, a textual inversion, an IP-Adapter.

    pipe.load_lora_weights(folder, weight_name="lora.safetensors", adapter_name="photoverse")
    pipe.load_textual_inversion(folder / "words.safetensors")
    pipe.load_ip_adapter(
        folder, subfolder="", weight_name="ip_adapter.safetensors", image_encoder_folder=None
    )
    pipe.set_ip_adapter_scale(sigma)
    embeds = load_file(folder / "image_embeds.safetensors")["embeds"]
    pipe("a photo of <person>", ip_adapter_image_embeds=[embeds])

The three together draw what `attach` draws with gamma = 1. What stock loaders have no dial for stays behind:
gamma, schedules, levels, and several persons. The LoRA is the adapter's; words and IP-Adapter
are of one identity card, and are personal data like the card itself.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.core import write_bytes_atomic, write_text_atomic
from components.inference.card import IdentityCard
from components.model import PhotoVerseAdapter, adapter_hash

TOKEN = "<person>"
EVEN_TRIES = 64  # starting points for a norm without tiny weights; the best is taken

README = f"""Made by PhotoVerse for stock diffusers. Personal data of one person: words, ip_adapter and
image_embeds.

    from safetensors.torch import load_file
    pipe.load_lora_weights(".", weight_name="lora.safetensors", adapter_name="photoverse")
    pipe.load_textual_inversion("words.safetensors")
    pipe.load_ip_adapter(".", subfolder="", weight_name="ip_adapter.safetensors", image_encoder_folder=None)
    embeds = [load_file("image_embeds.safetensors")["embeds"]]          # without guidance: embeds[1:]
    pipe("a photo of {TOKEN}", ip_adapter_image_embeds=embeds)

Dials: alpha by `pipe.set_adapters("photoverse", alpha)`, sigma by `pipe.set_ip_adapter_scale(sigma)`; gamma
is 1.
"""


def export_for_diffusers(
    adapter: PhotoVerseAdapter, card: IdentityCard, folder: Path, m: int | None = None
) -> list[Path]:
    """Writes LoRA, pseudo-words and visual branch for stock loaders.

    Args:
        adapter: The adapter.
        card: The person.
        folder: Where to write.
        m: How many pseudo-words; None takes all.

    Returns:
        The files.

    Raises:
        ValueError: The card has expired or is of another adapter, or it has too many visual tokens for an
            exact export.
    """
    from safetensors.torch import save

    card.check_date()
    card.check_fit(adapter_hash(adapter), adapter.fits.base_hash)
    embeds, projection = frozen_projection(card.visual_tokens)
    visual = {f"image_proj.{name}": tensor for name, tensor in projection.items()}
    visual |= {f"ip_adapter.{name}": tensor for name, tensor in visual_heads(adapter).items()}
    files: dict[str, dict[str, Tensor]] = {
        "lora.safetensors": lora_weights(adapter),
        "words.safetensors": {TOKEN: adapter.keep_words(card.words, m)},
        "ip_adapter.safetensors": visual,
        "image_embeds.safetensors": {"embeds": embeds},
    }
    for name, tensors in files.items():
        plain = {key: tensor.detach().float().cpu().contiguous() for key, tensor in tensors.items()}
        write_bytes_atomic(folder / name, save(plain))
    write_text_atomic(folder / "README.txt", README)
    return [folder / name for name in files]


def lora_weights(adapter: PhotoVerseAdapter) -> dict[str, Tensor]:
    """Returns the LoRA by the names that `load_lora_weights` reads."""
    weights: dict[str, Tensor] = {}
    for layer, dw in adapter.low_ranks():
        name = f"unet.{layer.name}"
        weights |= {f"{name}.lora_A.weight": dw.a, f"{name}.lora_B.weight": dw.b}
    return weights


def visual_heads(adapter: PhotoVerseAdapter) -> dict[str, Tensor]:
    """Returns W_k^S and W_v^S by the names that `load_ip_adapter` reads: odd numbers in the UNet's order."""
    weights: dict[str, Tensor] = {}
    for i, layer in enumerate(adapter.attentions):
        visual: Any = adapter.visual_kv[layer.key]
        weights[f"{2 * i + 1}.to_k_ip.weight"] = visual.to_k.weight
        weights[f"{2 * i + 1}.to_v_ip.weight"] = visual.to_v.weight
    return weights


def frozen_projection(visual_tokens_ND: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Returns an IP-Adapter projection ("full" kind) that gives exactly these tokens, and what to feed it.

    Every projection of diffusers ends in a LayerNorm, whose output is no arbitrary token; but with few
    tokens its weight and bias can be solved for such that it is (see `solve_layer_norm`). The first half of
    the embeds stands for "nobody": its tokens are zero, so that the unconditional half sees V_S = 0, which
    is sigma = 0.

    Returns:
        Embeds (2, 1, N, N + 1), one-hot rows that choose a stored token, and the projection's weights.
    """
    tokens = visual_tokens_ND.double()
    count, width = tokens.shape
    weight, bias, normal = solve_layer_norm(torch.cat([torch.zeros(1, width).double(), tokens]))
    step = 20.0  # GELU passes 0 and 20 on unchanged, in every precision
    projection = {
        "proj.0.weight": step * torch.eye(count + 1),
        "proj.0.bias": torch.zeros(count + 1),
        "proj.2.weight": (normal.T * 100 / step).float(),  # x 100: the LayerNorm's epsilon vanishes
        "proj.2.bias": torch.zeros(width),
        "proj.3.weight": weight.float(),
        "proj.3.bias": bias.float(),
    }
    chosen = torch.eye(count + 1)
    embeds = torch.stack([chosen[:1].expand(count, -1), chosen[1:]])
    return embeds[:, None], projection


def solve_layer_norm(tokens_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Finds w, b and normal rows z with w z_i + b = t_i for every token, the first of which is zero.

    z = t u - c with u = 1/w, c = b u must have mean 0 and variance 1. With u orthogonal to all tokens the
    means are one linear condition on c; the variances are linear in c too, but for |c|^2 = D, which a step
    along the solutions' null space settles.

    Args:
        tokens_ND: (N, D) float64, N well below D, the first row zero.

    Returns:
        w (D,), b (D,), z (N, D).

    Raises:
        ValueError: There are too many tokens for the width.
    """
    count, width = tokens_ND.shape
    if 2 * count >= width:
        raise ValueError(f"{count - 1} visual tokens are too many for a width of {width}: no exact export")
    generator = torch.Generator().manual_seed(0)
    u = _even_orthogonal(tokens_ND[1:], generator)
    for _ in range(60):
        scaled = tokens_ND[1:] * u
        conditions = torch.cat([torch.ones(1, width).double(), scaled])
        values = torch.cat([torch.zeros(1).double(), scaled.square().sum(1) / 2])
        c = torch.linalg.lstsq(conditions, values, driver="gelsd").solution
        if c.square().sum() <= width / 4:
            break
        u = u / 2  # smaller scaled tokens need a smaller c
    free = torch.randn(width, generator=generator, dtype=torch.float64).sign()
    free = free - torch.linalg.lstsq(conditions, conditions @ free, driver="gelsd").solution
    c = c + free / free.norm() * (width - c.square().sum()).sqrt()
    return 1 / u, c / u, tokens_ND * u - c


def _even_orthogonal(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """A vector orthogonal to the tokens whose smallest entry is as large as a few tries can make it."""
    basis = torch.linalg.svd(tokens, full_matrices=False)[2]
    starts = 1 + 0.5 * torch.randn(EVEN_TRIES, tokens.shape[1], generator=generator, dtype=torch.float64)
    found = starts - starts @ basis.T @ basis
    return found[found.abs().min(dim=1).values.argmax()]
