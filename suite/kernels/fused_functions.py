"""Pointwise functions as the GPU kernels take them: see :mod:`suite.kernels.triton_functions`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from suite.models.heads.learnable import MonotonicNetwork, Plif
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Pointwise

# Their kinds; sigsoftmax is a GSS with k = 2.
IDENTITY, SIGSOFTMAX, GSS, PLIF, NETWORK = range(5)


class Function(NamedTuple):
    """A pointwise function as the kernels take it."""

    kind: int
    table: Tensor | None = None
    a: float = 0.0
    b: float = 1.0
    size: int = 1  # pieces or units


def as_function(pointwise: Pointwise, operands: tuple[Tensor, ...]) -> Function:
    """``pointwise`` with the tensors that it is computed from."""
    if isinstance(pointwise, GeneralizedSigsoftmax):
        if pointwise.k == 2.0:
            return Function(SIGSOFTMAX, None, pointwise.c)
        return Function(GSS, None, pointwise.c, pointwise.k)
    if isinstance(pointwise, Plif):
        knots = operands[0].numel()
        table = torch.stack([o.detach().float() for o in operands], 1).view(torch.int64)
        return Function(PLIF, table, pointwise.bound, knots / (2.0 * pointwise.bound), knots)
    if isinstance(pointwise, MonotonicNetwork):
        table = torch.cat([o.detach().float().reshape(-1) for o in operands])
        return Function(NETWORK, table, size=operands[1].numel())
    return Function(IDENTITY)
