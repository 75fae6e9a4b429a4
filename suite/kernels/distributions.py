"""Full distributions of a mixture, log p of every word, with K times as many logits for a chunk of contexts only."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from suite.kernels import reference
from suite.models.heads.pointwise import Pointwise
from suite.spec.recipe import Arithmetic

# The experts' logits of a chunk; a CPU wants them in its cache.
DEFAULT_BYTES = {"cpu": 8 * 2**20, "cuda": 256 * 2**20}


def chunks(
    contexts: Tensor,
    log_prior: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    pointwise: Pointwise,
    arithmetic: Arithmetic = "float32",
    dtype: torch.dtype | None = None,
    chunk_bytes: int | None = None,
) -> Iterator[Tensor]:
    """:func:`mixture_log_probs` of a few contexts after the other, [n, V] each."""
    dtype = dtype or contexts.dtype
    weight, bias, log_prior = (None if t is None else t.to(dtype) for t in (weight, bias, log_prior))  # type: ignore[assignment]
    budget = chunk_bytes or DEFAULT_BYTES.get(contexts.device.type, DEFAULT_BYTES["cpu"])
    step = max(1, budget // (contexts.shape[1] * weight.shape[0] * dtype.itemsize))
    for start in range(0, contexts.shape[0], step):
        rows = slice(start, start + step)
        prior = None if log_prior is None else log_prior[rows]
        yield reference.mixture_log_probs(contexts[rows].to(dtype), prior, weight, bias, pointwise, arithmetic)


def mixture_log_probs(
    contexts: Tensor,
    log_prior: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    pointwise: Pointwise,
    arithmetic: Arithmetic = "float32",
    dtype: torch.dtype | None = None,
    chunk_bytes: int | None = None,
) -> Tensor:
    """Log-probabilities of every word; differentiable, at the memory of :mod:`suite.kernels.reference` then.

    Args:
        contexts: [N, K, d].
        log_prior: [N, K], log of the mixture weights; None where K = 1.
        weight: [V, d].
        bias: [V] or None.
        pointwise: increasing g applied to every logit.
        arithmetic: of the product.
        dtype: of the computation and the result; that of ``contexts`` when None. Parameters of ``pointwise`` are cast
            where it is used.
        chunk_bytes: budget for the experts' logits of a chunk; the device's default when None.

    Returns:
        [N, V].
    """
    parts = chunks(contexts, log_prior, weight, bias, pointwise, arithmetic, dtype, chunk_bytes)
    if torch.is_grad_enabled():
        return torch.cat(list(parts))
    out = torch.empty(contexts.shape[0], weight.shape[0], dtype=dtype or contexts.dtype, device=contexts.device)
    start = 0
    for part in parts:
        out[start : start + part.shape[0]] = part
        start += part.shape[0]
    return out
