"""PhotoVerse's objective, one function an equation and named after it, over the samples of a (micro) batch.

    Eq. (2)  L_diffusion = mean of (prediction - target)^2
    Eq. (5)  L_reg^T     = mean |p_f|
    Eq. (6)  L_reg^S     = mean |V_S|
    Eq. (7)  L_face      = 1 - cos(ArcFace(x), ArcFace(x'))
    Eq. (8)  L_total     = L_diffusion + lambda_face L_face + lambda_rt L_reg^T + lambda_rv L_reg^S

Terms return a value for each sample; how samples, workers and accumulation are averaged is decided in one
place, `step.py`. Eq. (4), the random fusion, is in `fusion.py`; Eq. (3) in `components/model/attention.py`.
Shapes: B batch, C h w latents, m pseudo-words, D width, H heads or layers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def eq2_diffusion_loss(
    prediction_BChw: Tensor, target_BChw: Tensor, weight_B1hw: Tensor | None = None
) -> Tensor:
    """Returns (B,): mean squared error (PhotoVerse Eq. 2, L_diffusion), in float32 at least.

    Args:
        prediction_BChw: What the UNet says.
        target_BChw: What it should say.
        weight_B1hw: What each place counts, of mean 1; None counts all alike, as the paper.
    """
    high = torch.promote_types(prediction_BChw.dtype, torch.float32)
    squared = (prediction_BChw.to(high) - target_BChw.to(high)).square()
    if weight_B1hw is not None:
        squared = weight_B1hw * squared
    return squared.flatten(1).mean(dim=1)


def eq7_face_loss(reference_BD: Tensor, embedding_BD: Tensor) -> Tensor:
    """Returns (B,): 1 - cos(ArcFace(x), ArcFace(x')), in [0, 2] (PhotoVerse Eq. 7, L_face).

    The paper writes C(f(x) - f(x')) and calls C the cosine similarity of features, which as a loss would
    push faces apart; one minus the cosine of the two is what it can only mean.

    Args:
        reference_BD: Identity of the given photo; no gradient flows to it.
        embedding_BD: Identity of the denoised picture.
    """
    return 1 - F.cosine_similarity(reference_BD.detach().to(embedding_BD.dtype), embedding_BD, dim=-1)


def eq5_text_regularizer(words_BmD: Tensor) -> Tensor:
    """Returns (B,): mean|p_f| of the pseudo-words before the text encoder (PhotoVerse Eq. 5)."""
    return words_BmD.abs().flatten(1).mean(dim=1)


def eq6_visual_regularizer(values: Sequence[Tensor]) -> Tensor:
    """Returns (B,): mean|V_S|, each cross-attention layer counting alike (PhotoVerse Eq. 6).

    Args:
        values: V_S of each layer, (B, N, D) or (B, heads, N, D); widths may differ between layers. A layer
            that already reports (B,) means is taken as it is.

    Raises:
        ValueError: No layer reported its values: the model was not asked to record them.
    """
    if not values:
        raise ValueError(
            "no visual values were recorded: the regulariser needs those of each cross-attention"
        )
    means = [value if value.dim() == 1 else value.abs().flatten(1).mean(dim=1) for value in values]
    return torch.stack(means).mean(dim=0)


def eq8_total_loss(
    diffusion: Tensor,
    face: Tensor,
    text: Tensor,
    visual: Tensor,
    lambda_face: float = 0.01,
    lambda_text: float = 0.01,
    lambda_visual: float = 0.001,
) -> Tensor:
    """Returns L_total, the weighted sum of the four terms (PhotoVerse Eq. 8); weights as in the paper.

    Args:
        diffusion: L_diffusion, of any shape.
        face: L_face, of the same shape.
        text: L_reg^T.
        visual: L_reg^S.
        lambda_face: lambda_face.
        lambda_text: lambda_rt.
        lambda_visual: lambda_rv.
    """
    return diffusion + lambda_face * face + lambda_text * text + lambda_visual * visual


def min_snr_weights(snr_B: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Returns (B,) loss weights min(SNR, gamma) / SNR in the form that fits the prediction (Min-SNR).

    For v-prediction the weight is min(SNR, gamma) / (SNR + 1), which is defined at zero SNR too. For
    epsilon at zero SNR it is the limit, 1.

    Raises:
        ValueError: `prediction_type` is not "epsilon", "v_prediction" or "sample".
    """
    clipped = snr_B.clamp(max=gamma)
    if prediction_type == "epsilon":
        return torch.where(snr_B > 0, clipped / snr_B.clamp_min(1e-20), torch.ones_like(snr_B))
    if prediction_type == "v_prediction":
        return clipped / (snr_B + 1)
    if prediction_type == "sample":
        return clipped
    raise ValueError(f"prediction type {prediction_type!r} is not known: epsilon, v_prediction or sample")
