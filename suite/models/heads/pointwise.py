"""Increasing functions of a single logit: the family that turns a softmax into sigsoftmax, GSS, PLIF and the rest.

A new output function is a new subclass: g(z) elementwise, any shape in, the same shape out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.spec.types import Finite, PositiveFloat

# Gradient by g(z) to the gradient by z and those by the operands; it may overwrite what it is given.
Pullback = Callable[[Tensor], tuple[Tensor, tuple[Tensor | None, ...]]]


class Pointwise(nn.Module, ABC):
    """An increasing function g applied to every logit; p = softmax(g(z)). Adding a constant to g changes nothing.

    ``forward`` is all a subclass must write. The fused loss calls :meth:`pullback`, which goes through autograd unless
    a subclass knows a shorter way.
    """

    @abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """g(z), elementwise."""

    def operands(self) -> tuple[Tensor, ...]:
        """The tensors g is computed from, differentiable by g's parameters; made once for a whole pass."""
        return tuple(self.parameters())

    def evaluate(self, z: Tensor, operands: tuple[Tensor, ...]) -> Tensor:
        """g(z) as a function of z and of what :meth:`operands` gave, differentiable by both as often as need be."""
        names = [name for name, _ in self.named_parameters()]
        out: Tensor = torch.func.functional_call(self, dict(zip(names, operands, strict=True)), (z,))
        return out

    def pullback(self, z: Tensor, operands: tuple[Tensor, ...]) -> tuple[Tensor, Pullback]:
        """g(z) as a tensor of its own that may be overwritten, and how gradients go back through it.

        Args:
            z: logits, any shape; may be overwritten by the pullback, not before.
            operands: what :meth:`operands` gave.
        """
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            leaves = tuple(o.detach().requires_grad_(o.requires_grad) for o in operands)
            out = self.evaluate(leaf, leaves)
        wanted = [leaf, *(o for o in leaves if o.requires_grad)]

        def back(grad: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            of_z, *rest = torch.autograd.grad(out, wanted, grad)
            remaining = iter(rest)
            return of_z, tuple(next(remaining) if o.requires_grad else None for o in leaves)

        return out.detach().clone(), back


class Identity(Pointwise):
    """g(z) = z: the linear softmax."""

    def forward(self, z: Tensor) -> Tensor:
        """Return z itself."""
        return z

    def pullback(self, z: Tensor, operands: tuple[Tensor, ...]) -> tuple[Tensor, Pullback]:
        """z itself, in place."""
        return z, lambda grad: (grad, ())


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

    def pullback(self, z: Tensor, operands: tuple[Tensor, ...]) -> tuple[Tensor, Pullback]:
        """g'(z) = 1 + (k - 1) sigmoid(c - z)."""

        def back(grad: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            slope = z.neg_().add_(self.c).sigmoid_().mul_(self.k - 1.0).add_(1.0)
            return grad.mul_(slope), ()

        return self.forward(z), back


class Sigsoftmax(GeneralizedSigsoftmax):
    """g(z) = z + log sigmoid(z) = 2 z - softplus(z): exp(z) sigmoid(z), normalised (Kanai et al. 2018, eq. 11).

    No parameter of its own; GSS with c = 0, k = 2.
    """

    def __init__(self) -> None:
        super().__init__(c=0.0, k=2.0)
