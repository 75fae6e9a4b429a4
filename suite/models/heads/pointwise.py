"""Increasing functions of a single logit: the family that turns a softmax into sigsoftmax, GSS, PLIF and the rest.

A new output function is a new subclass: g(z) elementwise, any shape in, the same shape out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional

from suite.spec.types import Finite, PositiveFloat


class Pointwise(nn.Module, ABC):
    """An increasing function g applied to every logit; p = softmax(g(z)). Adding a constant to g changes nothing."""

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """g(z), elementwise."""


class Identity(Pointwise):
    """g(z) = z: the linear softmax."""

    def forward(self, z: Tensor) -> Tensor:
        """Return z itself."""
        return z


class GeneralizedSigsoftmax(Pointwise):
    """GSS: g(z) = k (z - c) + c - (k - 1) softplus(z - c) (Parthiban et al. 2021, eq. 2); k = 1 is the softmax.

    Computed as z + (k - 1) logsigmoid(z - c), the same function without a cancellation between large terms. Its slope
    runs from k (far below c) to 1 (far above), so it increases for every k > 0.
    """

    def __init__(self, *, c: Finite = 0.0, k: PositiveFloat = 2.0) -> None:
        super().__init__()
        self.c = c
        self.k = k

    def forward(self, z: Tensor) -> Tensor:
        """Elementwise GSS."""
        return z + (self.k - 1.0) * functional.logsigmoid(z - self.c)


class Sigsoftmax(GeneralizedSigsoftmax):
    """g(z) = z + log sigmoid(z) = 2 z - softplus(z): exp(z) sigmoid(z), normalised (Kanai et al. 2018, eq. 11).

    No parameter of its own; GSS with c = 0, k = 2.
    """

    def __init__(self) -> None:
        super().__init__(c=0.0, k=2.0)
