"""Locked dropout's kernel under Triton's interpreter on the CPU, against torch's own operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("triton", reason="triton is not installed: pip install triton to run its interpreter on the CPU")

from suite.models.dropout_triton import locked

SCALE = 1 / 0.6


def plain(x: Tensor, mask: Tensor, batch: int, features: int, dtype: torch.dtype) -> Tensor:
    kept = (x.float() * mask.float() * SCALE).to(dtype)
    return functional.pad(kept, (0, features - x.shape[2], 0, batch - x.shape[1]))


@pytest.mark.parametrize(
    ("shape", "batch", "features", "dtype", "to"),
    [
        ((3, 5, 20), 8, 32, torch.float32, torch.float16),
        ((4, 2, 700), 2, 700, torch.float16, torch.float16),
        ((2, 3, 17), 3, 17, torch.float32, torch.float32),
    ],
)
def test_one_pass_masks_casts_and_pads(
    shape: tuple[int, ...], batch: int, features: int, dtype: torch.dtype, to: torch.dtype
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).requires_grad_()
    mask = torch.bernoulli(torch.full((1, *shape[1:]), 0.6)).to(dtype)
    fast, slow = locked(x, mask, SCALE, batch, features, to), plain(x, mask, batch, features, to)
    torch.testing.assert_close(fast, slow)
    above = torch.randn(slow.shape).to(to)
    torch.testing.assert_close(torch.autograd.grad(fast, x, above), torch.autograd.grad(slow, x, above))


def test_it_can_be_differentiated_twice() -> None:
    x, mask = torch.randn(2, 3, 4).requires_grad_(), torch.bernoulli(torch.full((1, 3, 4), 0.6))

    def curvature(y: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    slow = curvature(plain(x, mask, 4, 6, torch.float32))
    torch.testing.assert_close(curvature(locked(x, mask, SCALE, 4, 6, torch.float32)), slow)
