"""The experts' contexts, h_k = tanh(P_k g) with locked dropout (Yang et al. 2018, section 3.1), whole or in chunks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from suite.kernels.arithmetic import Products, linear
from suite.kernels.devices import runs_triton
from suite.spec.recipe import Arithmetic


class Projection(NamedTuple):
    """What turns N contexts of size H into K expert contexts of size d.

    ``weight`` [K d, H]; ``bias`` [K d]; ``mask`` [B, K d] of zeros and ones, token n has row n mod B, or None; a kept
    value is multiplied by ``scale``.
    """

    weight: Tensor
    bias: Tensor
    experts: int
    mask: Tensor | None = None
    scale: float = 1.0

    def with_parameters(self, weight: Tensor | None, bias: Tensor | None) -> Projection:
        """The same with parameters that an autograd function was handed."""
        assert weight is not None
        assert bias is not None
        return self._replace(weight=weight, bias=bias)


def expert_contexts(contexts: Tensor, projection: Projection, arithmetic: Arithmetic) -> Tensor:
    """[N, K, d] of ``contexts`` [N, H]: every one at once, differentiable by autograd."""
    weight, bias, experts, mask, scale = projection
    if runs_triton(contexts.device) and contexts.dtype is torch.float32:
        from suite.kernels import projection_triton

        made = projection_triton.expert_contexts(contexts, weight, bias, mask, scale, arithmetic)
        return made.view(made.shape[0], experts, -1)
    latent = torch.tanh(linear(contexts, weight, bias, arithmetic))
    if mask is not None:
        latent = (latent.view(-1, *mask.shape) * mask * scale).view_as(latent)
    return latent.view(latent.shape[0], experts, -1)


class ProjectedChunks:
    """Expert contexts of a few tokens at a time, with the gradients of projection and contexts summed by hand."""

    def __init__(
        self, contexts: Tensor, projection: Projection, products: Products, needs: tuple[bool, bool, bool]
    ) -> None:
        self.contexts, self.projection, self.products = contexts, projection, products
        self.weight = products.operand(projection.weight)
        needs_contexts, needs_weight, needs_bias = needs
        self.of_contexts = torch.empty_like(contexts) if needs_contexts else None
        self.of_weight = torch.empty_like(projection.weight) if needs_weight else None
        self.of_bias = torch.zeros_like(projection.bias) if needs_bias else None
        streams = None if projection.mask is None else projection.mask.shape[0]
        self._stream = None if streams is None else torch.arange(contexts.shape[0], device=contexts.device) % streams
        self._kept: tuple[Tensor, Tensor, Tensor | None]

    def operand(self, rows: slice) -> Tensor:
        """Expert contexts [n K, d] of the tokens in ``rows``, as a product takes them."""
        operand = self.products.operand(self.contexts[rows])
        out = self.contexts.new_empty(operand.shape[0], self.weight.shape[0])
        latent = self.products.multiply(operand, self.weight.t(), out).add_(self.projection.bias).tanh_()
        mask = None
        tanh = latent
        if self.projection.mask is not None and self._stream is not None:
            mask = self.projection.mask[self._stream[rows]]
            latent = (latent * mask).mul_(self.projection.scale)
        self._kept = (operand, tanh, mask)
        return self.products.operand(latent.view(operand.shape[0] * self.projection.experts, -1))

    def back(self, rows: slice, of_latent: Tensor, alpha: float, first: bool) -> None:
        """Take the gradient [n K, d] of the last chunk's latent, overwriting it; the sums get ``alpha`` times it."""
        operand, tanh, mask = self._kept
        of_inner = of_latent.view_as(tanh)
        if mask is not None:
            of_inner.mul_(mask).mul_(self.projection.scale)
        of_inner.mul_(tanh.square_().neg_().add_(1.0))
        if self.of_bias is not None:
            self.of_bias.add_(of_inner.sum(0), alpha=alpha)
        gradient = self.products.operand(of_inner)
        if self.of_weight is not None:
            self.products.add(self.of_weight, gradient.t(), operand, alpha, first=first)
        if self.of_contexts is not None:
            self.products.multiply(gradient, self.weight, self.of_contexts[rows], alpha)
