"""The loss in a form that can be differentiated again and again: the reference, checkpointed chunk by chunk.

The one-pass loss makes its gradients in the forward pass and forgets how; a Hessian-vector product, or a use of single
tokens' losses other than their weighted sum, takes this form: each chunk's logits are made again in the backward pass.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from suite.kernels import reference
from suite.kernels.projection import Projection, expert_contexts
from suite.models.heads.pointwise import Pointwise
from suite.spec.recipe import Arithmetic

_log = logging.getLogger("suite")
CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}


class Loss(NamedTuple):
    """Which loss is meant: the arguments of :func:`suite.kernels.chunked.mixture_nll` that carry no gradient."""

    targets: Tensor
    pointwise: Pointwise
    eps: float
    chunk_bytes: int
    arithmetic: Arithmetic
    projection: Projection | None
    factor: float = 1.0  # what the loss is likely to be multiplied with before it is differentiated


@cache
def say_once(reason: str) -> None:
    """Log why the slower form is taken, the first time only."""
    _log.warning("the head's loss falls back to its checkpointed reference form: %s", reason)


def mixture_nll(
    contexts: Tensor,
    log_prior: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    pointwise: Pointwise,
    eps: float = 0.0,
    arithmetic: Arithmetic = "float32",
    operands: tuple[Tensor, ...] | None = None,
    chunk_bytes: int | None = None,
) -> Tensor:
    """:func:`suite.kernels.reference.mixture_nll` [N], a chunk of logits at a time, differentiable any number of times.

    Args:
        contexts: [N, K, d].
        log_prior: [N, K] or None where K = 1.
        weight: [V, d].
        bias: [V] or None.
        targets: [N], word ids.
        pointwise: increasing g applied to every logit.
        eps: train on log(p + eps).
        arithmetic: of the products.
        operands: tensors g is computed from; those of :meth:`Pointwise.operands` when None.
        chunk_bytes: budget for the logits of a chunk; the device's default when None.
    """
    budget = chunk_bytes or CHUNK_BYTES.get(contexts.device.type, CHUNK_BYTES["cpu"])
    a_token = contexts.shape[1] * weight.shape[0] * contexts.element_size()
    step = max(1, budget // a_token)
    used = pointwise.operands() if operands is None else operands

    def score(part: Tensor, prior: Tensor | None, words: Tensor) -> Tensor:
        def g(z: Tensor) -> Tensor:
            return pointwise.evaluate(z, used)

        return reference.mixture_nll(part, prior, weight, bias, words, g, eps, arithmetic)

    if step >= contexts.shape[0]:  # one chunk: nothing to save
        return score(contexts, log_prior, targets)
    parts = []
    for start in range(0, contexts.shape[0], step):
        rows = slice(start, start + step)
        prior = None if log_prior is None else log_prior[rows]
        parts.append(
            checkpoint(score, contexts[rows], prior, targets[rows], use_reentrant=False, preserve_rng_state=False)
        )
    return torch.cat(parts)


def gradients(
    meant: Loss, saved: tuple[Tensor | None, ...], needs: tuple[bool, ...], of_loss: Tensor
) -> list[Tensor | None]:
    """Gradients of the one-pass loss by its ``saved`` arguments, made so that they can be differentiated.

    ``needs`` says which are asked for; the others come out as None.
    """
    say_once("its gradient is to be differentiated again (create_graph)")
    # Aliases: one operand may be computed from another, and only the direct dependence is meant here.
    saved = tuple(None if t is None else t.view_as(t) for t in saved)
    contexts, log_prior, weight, bias, row_weight, project, project_bias, *operands = saved
    assert contexts is not None
    assert weight is not None
    latent = contexts
    if meant.projection is not None:
        made = meant.projection.with_parameters(project, project_bias)
        latent = expert_contexts(contexts, made, meant.arithmetic)
    nll = mixture_nll(
        latent,
        log_prior,
        weight,
        bias,
        meant.targets,
        meant.pointwise,
        meant.eps,
        meant.arithmetic,
        tuple(o for o in operands if o is not None),
        meant.chunk_bytes,
    )
    loss = nll.mean() if row_weight is None else (row_weight * nll).sum()
    wanted = [t for t, needed in zip(saved, needs, strict=True) if needed and t is not None]
    found = iter(torch.autograd.grad(loss, wanted, of_loss, create_graph=True, allow_unused=True))
    return [next(found) if needed and t is not None else None for t, needed in zip(saved, needs, strict=True)]
