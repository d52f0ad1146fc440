"""The optimizer of the base model: Muon for matrices and kernels, AdamW for the rest."""

import pytest
import torch
from torch import nn

from components.portraits.pretrain.muon import BETAS, Muon, orthogonalized, parameter_groups


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (48, 48)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    found = orthogonalized(matrix)
    values = torch.linalg.svdvals(found)
    assert found.shape == matrix.shape
    assert found.dtype == matrix.dtype
    assert 0.4 < values.min()
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), dim=0) > 0.95


def test_what_is_no_matrix_moves_as_in_adamw():
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 12)) for _ in range(2))
    muon = Muon([{"params": [ours], "weight_decay": 0.1}], lr=0.01)
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=BETAS, weight_decay=0.1)
    for step in range(5):
        for optimizer, parameter in ((muon, ours), (adamw, theirs)):
            parameter.grad = torch.cos(parameter.detach() * (step + 1))
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_an_update_of_a_kernel_has_the_size_of_one_of_adamw():
    kernel = nn.Parameter(torch.zeros(64, 32, 3, 3))
    optimizer = Muon([{"params": [kernel], "muon": True}], lr=1.0)
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    assert 0.1 < kernel.detach().pow(2).mean().sqrt() < 0.3


def test_matrices_and_kernels_go_to_muon_and_the_rest_to_adamw():
    net = nn.ModuleDict(
        {
            "conv": nn.Conv2d(32, 32, 3),
            "depthwise": nn.Conv2d(32, 32, 3, groups=32, bias=False),
            "embedding": nn.Embedding(50, 32),
        }
    )
    muon, adam, plain = parameter_groups(net, 0.1, apart=("embedding",))
    assert [tuple(p.shape) for p in muon["params"]] == [(32, 32, 3, 3)]
    assert sorted(tuple(p.shape) for p in adam["params"]) == [(32, 1, 3, 3), (50, 32)]
    assert [tuple(p.shape) for p in plain["params"]] == [(32,)]
    assert "weight_decay" not in plain
