"""The one-pass loss with plain torch between the products: any device, any dtype, any pointwise function."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from suite.kernels import one_pass
from suite.kernels.arithmetic import Products
from suite.kernels.one_pass import Call, RowPass
from suite.kernels.projection import Projection
from suite.kernels.twice import Loss
from suite.models.heads.pointwise import Pointwise
from suite.spec.recipe import Arithmetic

# Logits of one chunk. Every chunk adds to the whole gradient of the weight, so small chunks spend their time on that.
DEFAULT_BYTES = {"cpu": 48 * 2**20, "cuda": 128 * 2**20}


def mixture_nll(
    contexts: Tensor,
    log_prior: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    pointwise: Pointwise,
    row_weight: Tensor | None = None,
    eps: float = 0.0,
    chunk_bytes: int | None = None,
    arithmetic: Arithmetic = "float32",
    projection: Projection | None = None,
    factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Weighted negative log-likelihood of one target word a context.

    Differentiable; a gradient that is to be differentiated again comes from :mod:`suite.kernels.twice`.

    Args:
        contexts: [N, K, d]; [N, H] where ``projection`` makes the experts of them.
        log_prior: [N, K], log of the mixture weights; None where K = 1.
        weight: [V, d].
        bias: [V] or None.
        targets: [N], word ids.
        pointwise: increasing g applied to every logit.
        row_weight: [N] weights of the sum; the mean when None.
        eps: train on log(p + eps).
        chunk_bytes: budget for the logits of a chunk; the device's default when None.
        arithmetic: of the products.
        projection: makes the expert contexts chunk by chunk, so that N x K x d values need not exist.
        factor: what the loss will be multiplied with before it is differentiated; said ahead, it saves a pass over the
            gradients, and any other factor is still right.

    Returns:
        The scalar sum of ``row_weight * nll``, and ``nll`` [N] in nats without a gradient.
    """
    budget = chunk_bytes or DEFAULT_BYTES.get(contexts.device.type, DEFAULT_BYTES["cpu"])
    experts = contexts.shape[1] if projection is None else projection.experts
    problem = one_pass.Problem(
        Loss(targets, pointwise, eps, budget, arithmetic, projection, factor), TorchRows, experts
    )
    return one_pass.apply(problem, contexts, log_prior, weight, bias, row_weight)


class TorchRows(RowPass):
    """Every step an operation of torch on the chunk, in place where that is possible."""

    def __init__(self, call: Call, rows: int) -> None:
        super().__init__(call, rows)
        # A GPU's low-precision products have no bias of another dtype.
        self.bias_in_product = not call.products.native
        if call.of_bias and call.bias is not None:
            self.of_bias = torch.zeros_like(call.bias)
        if call.of_operands:
            self.of_operands = tuple(torch.zeros_like(o) for o in call.operands)

    @classmethod
    def logits(cls, products: Products) -> torch.dtype:
        """The arguments' own: every statistic is taken on it."""
        return products.dtype

    def run(self, z: Tensor, tokens: slice, scale: Tensor | float) -> Tensor | None:
        """See :meth:`RowPass.run`."""
        call, experts = self.call, self.call.experts
        if call.bias is not None and not self.bias_in_product:
            z.add_(call.bias)
        t, pullback = call.pointwise.pullback(z, call.operands)
        index = call.targets[tokens].repeat_interleave(experts).unsqueeze(1)
        log_z = torch.logsumexp(t, dim=1, keepdim=True)
        log_p_k = (t.gather(1, index) - log_z).view(-1, experts)
        joint = log_p_k if call.log_prior is None else log_p_k + call.log_prior[tokens]
        log_p = torch.logsumexp(joint, dim=1)
        log_likelihood = log_p
        share = call.row_weight if isinstance(call.row_weight, float) else call.row_weight[tokens]
        if call.eps > 0:
            log_likelihood = torch.logaddexp(log_p, torch.full_like(log_p, math.log(call.eps)))
            share = torch.exp(log_p - log_likelihood) * share
        self.nll[tokens] = -log_likelihood
        if not call.of_logits and self.of_log_prior is None:
            return None
        responsibility = torch.exp(joint - log_p.unsqueeze(1))
        responsibility *= share.unsqueeze(1) if isinstance(share, Tensor) else share
        if self.of_log_prior is not None:
            self.of_log_prior[tokens] = -responsibility
        if not call.of_logits:
            return None
        by_row = responsibility.view(-1, 1)
        of_t = t.sub_(log_z).exp_().mul_(by_row)
        of_t.scatter_add_(1, index, -by_row)
        of_z, of_operands = pullback(of_t)
        for total, part in zip(self.of_operands, of_operands, strict=True):
            if total is not None and part is not None:
                total += part
        if self.of_bias is not None:
            self.of_bias += of_z.sum(0)
        if call.products.needs_scale:
            of_z = of_z.mul_(scale)
        return call.products.round_(of_z)

    def finish(self) -> None:
        """Nothing is left to do: the sums are taken chunk by chunk."""
