"""The elementwise work of the one-pass loss in Triton: g, the log-sum-exp, the mixture, and dz in place.

Two passes over a chunk of logits [n K, V], one program a row (a token's expert): the first finds the row's
log-normaliser and log p_k(target); the second mixes the K experts of its token and overwrites the logits by the
gradient. Statistics are float32 whatever the logits are; sums run in a fixed order, so runs repeat bit for bit. The
bias is added here and the products have no epilogue.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# The fastest of a sweep on an H200, at 10,000 and at 33,278 words, in float32 and in bfloat16.
_BLOCK = 2048
_WARPS = 4


class Rows(NamedTuple):
    """Result for a chunk of n tokens: ``nll`` [n] and the gradient by the log prior [n, K] (None where K = 1)."""

    nll: Tensor
    of_log_prior: Tensor | None


@triton.jit
def _log_sigmoid(x):  # type: ignore[no-untyped-def]
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _normalise(  # type: ignore[no-untyped-def]
    logits,
    bias,
    targets,
    log_normaliser,
    log_p,
    stride,
    experts,
    c,
    k,
    WORDS: tl.constexpr,
    BIAS: tl.constexpr,
    GSS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Log-normaliser of a row and log p of its target, in one pass with a running maximum."""
    row = tl.program_id(0)
    base = logits + row.to(tl.int64) * stride
    columns = tl.arange(0, BLOCK)
    largest = -float("inf")
    total = 0.0
    for start in range(0, WORDS, BLOCK):
        index = start + columns
        inside = index < WORDS
        t = tl.load(base + index, mask=inside, other=-float("inf")).to(tl.float32)
        if BIAS:
            t += tl.load(bias + index, mask=inside, other=0.0)
        if GSS:
            t = tl.where(inside, t + (k - 1.0) * _log_sigmoid(t - c), -float("inf"))
        new = tl.maximum(largest, tl.max(t, 0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(t - new), 0)
        largest = new
    lse = largest + tl.log(total)
    target = tl.load(targets + row // experts)
    at = tl.load(base + target).to(tl.float32)
    if BIAS:
        at += tl.load(bias + target)
    if GSS:
        at = at + (k - 1.0) * _log_sigmoid(at - c)
    tl.store(log_normaliser + row, lse)
    tl.store(log_p + row, at - lse)


@triton.jit
def _differentiate(  # type: ignore[no-untyped-def]
    logits,
    bias,
    targets,
    log_normaliser,
    log_p,
    log_prior,
    row_weight,
    nll,
    of_log_prior,
    stride,
    experts,
    log_eps,
    c,
    k,
    WORDS: tl.constexpr,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    MIXED: tl.constexpr,
    EPS: tl.constexpr,
    GSS: tl.constexpr,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mix the token's experts, then overwrite the row's logits by the gradient; columns beyond WORDS become zero."""
    row = tl.program_id(0)
    token = row // experts
    own = tl.load(log_p + row)
    mixed = own
    if MIXED:
        lanes = tl.arange(0, EXPERTS)
        present = lanes < experts
        joint = tl.load(log_p + token * experts + lanes, mask=present, other=-float("inf"))
        joint += tl.load(log_prior + token * experts + lanes, mask=present, other=0.0)
        top = tl.max(joint, 0)
        mixed = top + tl.log(tl.sum(tl.exp(joint - top), 0))
        own += tl.load(log_prior + row)
    share = tl.load(row_weight + token)
    likelihood = mixed
    if EPS:
        larger = tl.maximum(mixed, log_eps)
        likelihood = larger + tl.log(tl.exp(mixed - larger) + tl.exp(log_eps - larger))
        share = share * tl.exp(mixed - likelihood)
    part = share * tl.exp(own - mixed)
    if row == token * experts:
        tl.store(nll + token, -likelihood)
    if MIXED:
        tl.store(of_log_prior + row, -part)
    lse = tl.load(log_normaliser + row)
    target = tl.load(targets + token)
    base = logits + row.to(tl.int64) * stride
    columns = tl.arange(0, BLOCK)
    for start in range(0, WIDTH, BLOCK):
        index = start + columns
        inside = index < WORDS
        z = tl.load(base + index, mask=inside, other=0.0).to(tl.float32)
        if BIAS:
            z += tl.load(bias + index, mask=inside, other=0.0)
        t = z
        if GSS:
            t = z + (k - 1.0) * _log_sigmoid(z - c)
        of_z = part * (tl.exp(t - lse) - tl.where(index == target, 1.0, 0.0))
        if GSS:
            of_z = of_z * (1.0 + (k - 1.0) * tl.sigmoid(c - z))
        of_z = tl.where(inside, of_z, 0.0)
        tl.store(base + index, of_z.to(logits.dtype.element_ty), mask=index < WIDTH)


def differentiate_rows(
    logits: Tensor,
    words: int,
    bias: Tensor | None,
    targets: Tensor,
    log_prior: Tensor | None,
    row_weight: Tensor,
    experts: int,
    gss: tuple[float, float] | None,
    eps: float,
) -> Rows:
    """Overwrite a chunk's logits by the gradient of the weighted loss by them.

    Args:
        logits: [n K, width >= V] without the bias; overwritten, columns from V on with zeros.
        words: V.
        bias: [V] in float32, or None.
        targets: [n], word ids.
        log_prior: [n, K] in float32, or None where K = 1.
        row_weight: [n] in float32.
        experts: K.
        gss: (c, k) of the generalised sigsoftmax, or None for the identity.
        eps: the loss is -log(p + eps).
    """
    rows, width = logits.shape
    tokens = rows // experts
    log_normaliser, log_p = torch.empty(2, rows, dtype=torch.float32, device=logits.device)
    nll = torch.empty(tokens, dtype=torch.float32, device=logits.device)
    of_prior = None if log_prior is None else torch.empty_like(log_prior)
    c, k = gss or (0.0, 1.0)
    # Triton wants a pointer even where the compiled kernel never reads it.
    unused = logits
    shared = {
        "WORDS": words,
        "BIAS": bias is not None,
        "GSS": gss is not None,
        "BLOCK": min(_BLOCK, triton.next_power_of_2(width)),
        "num_warps": _WARPS,
    }
    some_bias = unused if bias is None else bias
    _normalise[(rows,)](logits, some_bias, targets, log_normaliser, log_p, logits.stride(0), experts, c, k, **shared)
    _differentiate[(rows,)](
        logits,
        some_bias,
        targets,
        log_normaliser,
        log_p,
        unused if log_prior is None else log_prior,
        row_weight,
        nll,
        unused if of_prior is None else of_prior,
        logits.stride(0),
        experts,
        math.log(eps) if eps > 0 else 0.0,
        c,
        k,
        WIDTH=width,
        MIXED=log_prior is not None,
        EPS=eps > 0,
        EXPERTS=triton.next_power_of_2(experts),
        **shared,
    )
    return Rows(nll, of_prior)
