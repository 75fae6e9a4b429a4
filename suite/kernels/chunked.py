"""The output layer's loss in one pass over chunks: a mixture of K softmaxes at the memory of a softmax.

A chunk holds all K experts of a few tokens, so the experts' responsibilities are known right after the logits, and
every gradient is made in the forward pass: three matrix products, no recomputation, and one reused buffer of logits
sized by a byte budget instead of an N x K x V tensor. For a token with target y and weight w (see
:mod:`suite.kernels.reference` for the model):

    r_k = w exp(log pi_k + log p_k(y) - log p(y))        d loss / d log pi_k = -r_k
    d loss / d t_k = r_k (softmax(t_k) - onehot(y))      t_k = g(z_k), z_k = h_k W^T + b

With eps, the loss is -log(p + eps) and r_k carries the factor p / (p + eps).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suite.models.heads.pointwise import Pointwise

# Logits of one chunk. Every chunk adds to the whole gradient of the weight, so small chunks spend their time on that.
DEFAULT_BYTES = {"cpu": 64 * 2**20, "cuda": 128 * 2**20}


class Problem(NamedTuple):
    """The fixed arguments of one call, as :func:`mixture_nll` documents them."""

    targets: Tensor
    pointwise: Pointwise
    eps: float
    chunk_bytes: int


def tokens_per_chunk(experts: int, vocabulary: int, itemsize: int, chunk_bytes: int) -> int:
    """Tokens whose logits fit in ``chunk_bytes``; at least one, whatever the budget."""
    return max(1, chunk_bytes // (experts * vocabulary * itemsize))


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
) -> tuple[Tensor, Tensor]:
    """Weighted negative log-likelihood of one target word a context, differentiable once.

    Args:
        contexts: [N, K, d].
        log_prior: [N, K], log of the mixture weights; None where K = 1.
        weight: [V, d].
        bias: [V] or None.
        targets: [N], word ids.
        pointwise: increasing g applied to every logit.
        row_weight: [N] weights of the sum; 1 / N when None, the mean.
        eps: train on log(p + eps).
        chunk_bytes: budget for the logits of a chunk; the device's default when None.

    Returns:
        The scalar sum of ``row_weight * nll``, and ``nll`` [N] in nats without a gradient.
    """
    if row_weight is None:
        row_weight = contexts.new_full((contexts.shape[0],), 1.0 / contexts.shape[0])
    budget = chunk_bytes or DEFAULT_BYTES.get(contexts.device.type, DEFAULT_BYTES["cpu"])
    problem = Problem(targets, pointwise, eps, budget)
    loss, nll = _OnePass.apply(  # type: ignore[no-untyped-call]
        problem, contexts, log_prior, weight, bias, row_weight, *pointwise.operands()
    )
    return loss, nll


class _Gradients:
    """Where the gradients of a call accumulate; only those that are asked for exist."""

    def __init__(self, needs: tuple[bool, ...], arguments: tuple[Tensor | None, ...]) -> None:
        def zeros(wanted: bool, like: Tensor | None) -> Tensor | None:
            return torch.zeros_like(like) if wanted and like is not None else None

        contexts, log_prior, weight, bias, row_weight, *operands = arguments
        self.contexts = torch.empty_like(contexts) if needs[0] and contexts is not None else None
        self.log_prior = torch.empty_like(log_prior) if needs[1] and log_prior is not None else None
        self.weight = zeros(needs[2], weight)
        self.bias = zeros(needs[3], bias)
        self.row_weight = torch.empty_like(row_weight) if needs[4] and row_weight is not None else None
        self.operands = [zeros(wanted, like) for wanted, like in zip(needs[5:], operands, strict=True)]

    def all(self) -> tuple[Tensor | None, ...]:
        return (self.contexts, self.log_prior, self.weight, self.bias, self.row_weight, *self.operands)


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        problem: Problem,
        contexts: Tensor,
        log_prior: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        row_weight: Tensor,
        *operands: Tensor,
    ) -> tuple[Tensor, Tensor]:
        arguments = (contexts, log_prior, weight, bias, row_weight, *operands)
        gradients = _Gradients(ctx.needs_input_grad[1:], arguments)
        tokens, experts, _ = contexts.shape
        step = tokens_per_chunk(experts, weight.shape[0], weight.element_size(), problem.chunk_bytes)
        # One allocation serves every chunk; a fresh one each time would go back to the system and return as new pages.
        buffer = contexts.new_empty(min(step, tokens) * experts, weight.shape[0])
        nll = contexts.new_empty(tokens)
        for start in range(0, tokens, step):
            rows = slice(start, min(start + step, tokens))
            nll[rows] = _chunk(problem, rows, buffer, arguments, gradients)
        ctx.mark_non_differentiable(nll)
        ctx.gradients = gradients.all()
        return (row_weight * nll).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor, _of_nll: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("the gradients of this loss were handed out already; compute the loss again")
        # In place: they are this call's own, and as large as the parameters.
        return (None, *(None if g is None else g.mul_(of_loss) for g in gradients))


def _chunk(
    problem: Problem, rows: slice, buffer: Tensor, arguments: tuple[Tensor | None, ...], gradients: _Gradients
) -> Tensor:
    """Loss and gradients of the tokens in ``rows``; returns their negative log-likelihoods."""
    contexts, log_prior, weight, bias, row_weight, *operands = arguments
    assert contexts is not None
    assert weight is not None
    assert row_weight is not None
    latent = contexts[rows].flatten(0, 1)
    tokens, experts = contexts[rows].shape[:2]
    z = buffer[: latent.shape[0]]
    if bias is None:
        torch.mm(latent, weight.t(), out=z)
    else:
        torch.addmm(bias, latent, weight.t(), out=z)
    t, pullback = problem.pointwise.pullback(z, tuple(o for o in operands if o is not None))
    index = problem.targets[rows].repeat_interleave(experts).unsqueeze(1)
    log_z = torch.logsumexp(t, dim=1, keepdim=True)
    log_p_k = (t.gather(1, index) - log_z).view(tokens, experts)
    joint = log_p_k if log_prior is None else log_p_k + log_prior[rows]
    log_p = torch.logsumexp(joint, dim=1)
    log_likelihood = log_p
    share = row_weight[rows]
    if problem.eps > 0:
        log_likelihood = torch.logaddexp(log_p, log_p.new_tensor(problem.eps).log())
        share = share * torch.exp(log_p - log_likelihood)
    if gradients.row_weight is not None:
        gradients.row_weight[rows] = -log_likelihood
    if any(g is not None for g in gradients.all()):
        responsibility = torch.exp(joint - log_p.unsqueeze(1)) * share.unsqueeze(1)
        if gradients.log_prior is not None:
            gradients.log_prior[rows] = -responsibility
        by_row = responsibility.view(-1, 1)
        of_t = t.sub_(log_z).exp_().mul_(by_row)
        of_t.scatter_add_(1, index, -by_row)
        of_z, of_operands = pullback(of_t)
        for total, part in zip(gradients.operands, of_operands, strict=True):
            if total is not None and part is not None:
                total += part
        if gradients.contexts is not None:
            torch.mm(of_z, weight, out=gradients.contexts[rows].flatten(0, 1))
        if gradients.weight is not None:
            gradients.weight.addmm_(of_z.t(), latent)
        if gradients.bias is not None:
            gradients.bias += of_z.sum(0)
    return -log_likelihood
