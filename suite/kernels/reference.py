"""The reference form of the output layer: plain torch, materialises every logit, works in float64.

For N contexts, K experts, dimension d and V words, with one shared increasing function g:

    z_k = h_k W^T + b        log p(x) = logsumexp_k( log pi_k + g(z_k)[x] - logsumexp_v g(z_k)[v] )

softmax is K = 1 with g the identity; a mixture of softmaxes (Yang et al. 2018, eq. 3) is K > 1; sigsoftmax (Kanai et
al. 2018) and learnable monotonic functions (Ganea et al. 2019) are other g. Everything stays in log space, so logits
of any finite size give finite log-probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from suite.kernels.arithmetic import linear
from suite.spec.recipe import Arithmetic

Pointwise = Callable[[Tensor], Tensor]


def _logits(
    contexts: Tensor, weight: Tensor, bias: Tensor | None, pointwise: Pointwise, arithmetic: Arithmetic
) -> Tensor:
    return pointwise(linear(contexts, weight, bias, arithmetic))


def mixture_log_probs(
    contexts: Tensor,
    log_prior: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    pointwise: Pointwise,
    arithmetic: Arithmetic = "float32",
) -> Tensor:
    """Log-probabilities of every word.

    Args:
        contexts: [N, K, d], one row an expert.
        log_prior: [N, K], log of the mixture weights; None where K = 1.
        weight: [V, d], the output embeddings.
        bias: [V] or None.
        pointwise: increasing g applied to every logit.
        arithmetic: of the product.

    Returns:
        [N, V] in the dtype of ``contexts``.
    """
    log_p = functional.log_softmax(_logits(contexts, weight, bias, pointwise, arithmetic), dim=-1)
    if log_prior is None:
        return log_p.squeeze(1)
    return torch.logsumexp(log_prior.unsqueeze(-1) + log_p, dim=1)


def mixture_nll(
    contexts: Tensor,
    log_prior: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    pointwise: Pointwise,
    eps: float = 0.0,
    arithmetic: Arithmetic = "float32",
) -> Tensor:
    """Negative log-likelihood of one target word a context, in nats.

    Args:
        contexts: [N, K, d].
        log_prior: [N, K] or None where K = 1.
        weight: [V, d].
        bias: [V] or None.
        targets: [N], word ids.
        pointwise: increasing g applied to every logit.
        eps: the MoS authors train on log(p + 1e-8); 0 is the true likelihood.
        arithmetic: of the product.

    Returns:
        [N].
    """
    transformed = _logits(contexts, weight, bias, pointwise, arithmetic)
    index = targets.view(-1, 1, 1).expand(-1, transformed.shape[1], 1)
    log_p = transformed.gather(-1, index).squeeze(-1) - torch.logsumexp(transformed, dim=-1)
    if log_prior is not None:
        log_p = torch.logsumexp(log_prior + log_p, dim=-1)
    else:
        log_p = log_p.squeeze(1)
    if eps > 0:
        log_p = torch.logaddexp(log_p, torch.full_like(log_p, math.log(eps)))
    return -log_p
