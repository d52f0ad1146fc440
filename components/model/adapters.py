"""Adapters: features of several image-encoder layers -> pseudo-words and visual tokens (PhotoVerse Sec. 3.2).

Legend: B batch, m layers, T tokens a layer (CLS first), D_in width of the image encoder, D width of the
text encoder, K tokens that an adapter makes of a layer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdapterMLP(nn.Sequential):
    """`blocks` blocks of two linear layers, with LayerNorm and LeakyReLU after each but the last."""

    def __init__(self, in_width: int, width: int, out_width: int, blocks: int) -> None:
        linears = 2 * blocks
        widths = [in_width, *[width] * (linears - 1), out_width]
        layers: list[nn.Module] = []
        for i in range(linears):
            layers.append(nn.Linear(widths[i], widths[i + 1]))
            if i < linears - 1:
                layers += [nn.LayerNorm(width), nn.LeakyReLU()]
        super().__init__(*layers)


class LayerAdapter(nn.Module):
    """Turns the tokens of one image-encoder layer into one token, or into as many as came.

    Args:
        pooling: "cls_mean" averages an MLP of CLS and the mean of an MLP of the patches (as ELITE does);
            "cls" takes CLS alone; "patches" keeps every token.
        in_width, width, out_width, blocks: See `AdapterMLP`.
    """

    def __init__(self, pooling: str, in_width: int, width: int, out_width: int, blocks: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.cls = AdapterMLP(in_width, width, out_width, blocks)
        self.patches = None if pooling == "cls" else AdapterMLP(in_width, width, out_width, blocks)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Maps (B, T, D_in) to (B, K, D), K = T for "patches" and 1 else."""
        cls = self.cls(tokens_BTD[:, :1])
        if self.patches is None:
            return cls
        patches = self.patches(tokens_BTD[:, 1:])
        if self.pooling == "patches":
            return torch.cat([cls, patches], dim=1)
        return (cls + patches.mean(dim=1, keepdim=True)) / 2


class AdapterStack(nn.ModuleList):
    """One `LayerAdapter` for each of the m layers."""

    def __init__(
        self, layers: int, pooling: str, in_width: int, width: int, out_width: int, blocks: int
    ) -> None:
        super().__init__(LayerAdapter(pooling, in_width, width, out_width, blocks) for _ in range(layers))

    def forward(self, features_BmTD: Tensor) -> Tensor:
        """Maps (B, m, T, D_in) to (B, m, K, D)."""
        if features_BmTD.ndim != 4 or features_BmTD.shape[1] != len(self):
            raise ValueError(f"expected features (B, {len(self)}, T, D), found {tuple(features_BmTD.shape)}")
        return torch.stack([adapter(features_BmTD[:, i]) for i, adapter in enumerate(self)], dim=1)

    @torch.no_grad()
    def start_like(self, embeddings_VD: Tensor, probes: int = 256) -> None:
        """Rescales and shifts the last layers so that outputs start with the embeddings' mean and spread.

        The spread is measured on normal inputs, which is what normalised features look like.
        """
        mean, spread = embeddings_VD.float().mean(dim=0), embeddings_VD.float().std()
        for mlp in [module for module in self.modules() if isinstance(module, AdapterMLP)]:
            first, last = mlp[0], mlp[-1]
            assert isinstance(first, nn.Linear)
            assert isinstance(last, nn.Linear)
            generator = torch.Generator().manual_seed(0)
            inputs = torch.randn(probes, first.in_features, generator=generator).to(last.weight)
            last.weight.mul_((spread / mlp(inputs).float().std(dim=0).mean()).to(last.weight))
            last.bias.zero_()
            last.bias.copy_(mean.to(last.bias) - mlp(inputs).mean(dim=0))


def normalize(features_BmTD: Tensor) -> Tensor:
    """LayerNorm without weights on each token, in float32, for stored features may be float16."""
    return F.layer_norm(features_BmTD.float(), features_BmTD.shape[-1:])
