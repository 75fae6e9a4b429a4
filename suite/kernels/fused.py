"""The one-pass loss with Triton row kernels: cuBLAS for the products, two passes over each chunk's logits between them.

The same driver as :mod:`suite.kernels.chunked`. Products run in the dtype asked for; statistics, the loss and the
weight's gradient are float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suite.kernels.chunked import tokens_per_chunk
from suite.kernels.triton_rows import differentiate_rows
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Pointwise

DEFAULT_BYTES = 128 * 2**20
_ALIGN = 16  # elements: cuBLAS has its fast kernels only for sizes and rows that are multiples of some power of two
# Half-precision gradients of the logits are scaled so that the heaviest row's are at most this, well inside float16.
_HALF_PEAK = 64.0


class _Call(NamedTuple):
    targets: Tensor
    gss: tuple[float, float] | None
    eps: float
    dtype: torch.dtype
    chunk_bytes: int


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
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """See :func:`suite.kernels.chunked.mixture_nll`; float32 arguments, products in ``dtype``.

    ``pointwise`` is the identity or a GSS (:func:`suite.kernels.choice.choose` sees to it).
    """
    if row_weight is None:
        row_weight = contexts.new_full((contexts.shape[0],), 1.0 / contexts.shape[0])
    gss = (pointwise.c, pointwise.k) if isinstance(pointwise, GeneralizedSigsoftmax) else None
    call = _Call(targets, gss, eps, dtype, chunk_bytes or DEFAULT_BYTES)
    loss, nll = _Fused.apply(call, contexts, log_prior, weight, bias, row_weight)  # type: ignore[no-untyped-call]
    return loss, nll


def _padded(matrix: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """``matrix`` in ``dtype`` with zeros down to ``rows`` and across to ``columns``; itself where nothing changes."""
    if matrix.shape == (rows, columns):
        return matrix.to(dtype)
    out = torch.zeros(rows, columns, dtype=dtype, device=matrix.device)
    out[: matrix.shape[0], : matrix.shape[1]] = matrix
    return out


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: _Call,
        contexts: Tensor,
        log_prior: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        row_weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        tokens, experts, size = contexts.shape
        words = weight.shape[0]
        half = call.dtype in (torch.float16, torch.bfloat16)
        scale = _HALF_PEAK / row_weight.max() if half else row_weight.new_ones(())
        scaled_weight = row_weight * scale
        width = -(-words // _ALIGN) * _ALIGN
        padded_weight = _padded(weight, width, size, call.dtype)
        step = tokens_per_chunk(experts, width, call.dtype.itemsize, call.chunk_bytes)
        buffer = torch.empty(min(step, tokens) * experts, width, dtype=call.dtype, device=contexts.device)
        # A column of ones beside the contexts makes the bias's gradient a column of the weight's: free in a product
        # whose tiles are wider than the contexts anyway, and no further pass over the logits.
        columns = size if bias is None else -(-(size + 1) // _ALIGN) * _ALIGN
        of_contexts = torch.empty_like(contexts)
        of_prior = None if log_prior is None else torch.empty_like(log_prior)
        of_weight = torch.zeros(width, columns, dtype=torch.float32, device=contexts.device)
        nll = torch.empty(tokens, dtype=torch.float32, device=contexts.device)
        for start in range(0, tokens, step):
            rows = slice(start, min(start + step, tokens))
            flat = contexts[rows].flatten(0, 1)
            logits = buffer[: flat.shape[0]]
            torch.mm(flat.to(call.dtype), padded_weight.t(), out=logits)
            prior = None if log_prior is None else log_prior[rows]
            nll[rows], of_rows = differentiate_rows(
                logits, words, bias, call.targets[rows], prior, scaled_weight[rows], experts, call.gss, call.eps
            )
            if of_prior is not None and of_rows is not None:
                of_prior[rows] = of_rows
            latent = _padded(flat, flat.shape[0], columns, call.dtype)
            if columns > size:
                latent[:, size] = 1.0
            if half:
                of_contexts[rows] = torch.mm(logits, padded_weight).view_as(of_contexts[rows])
                of_weight += torch.mm(logits.t(), latent, out_dtype=torch.float32)
            else:
                torch.mm(logits, padded_weight, out=of_contexts[rows].flatten(0, 1))
                of_weight.addmm_(logits.t(), latent)
        ctx.gradients = (
            of_contexts,
            of_prior,
            of_weight[:words, :size],
            None if bias is None else of_weight[:words, size],
        )
        ctx.mark_non_differentiable(nll)
        ctx.unscale = 1.0 / scale
        return (row_weight * nll).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor, _of_nll: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of this loss were handed out already; compute the loss again")
        gradients, ctx.gradients = ctx.gradients, None
        factor = of_loss * ctx.unscale
        return (None, *(None if g is None else g.mul_(factor) for g in gradients), None)
