"""The elementwise work of the one-pass loss in Triton: g, the log-sum-exp and the mixture.

Three kernels over a chunk of logits [n K, width], a row a token's expert. ``statistics`` reads every row once: each
lane keeps a sum of its own, so a row is reduced across lanes once, at its end. ``mix`` turns a token's experts into its
loss and their shares. ``gradient`` (:mod:`suite.kernels.triton_gradient`) reads the rows again, last ones first since
they are the likeliest to be in the cache still, writes the gradient, and sums it by column for the bias. All statistics
and sums are float32 whatever the logits are, and in a fixed order (but for PLIF's, see ``add_to_pieces``), so runs
repeat bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from suite.kernels.triton_functions import LOG2E, transformed

# Sizes that change with the length of a segment: a kernel made for one serves all.
_SIZES = ["rows", "experts", "tokens"]
_PARTS = ["targets", "log_prior", "row_weight", "nll", "of_log_prior"]


@triton.jit
def _tile(  # type: ignore[no-untyped-def]
    base,
    index,
    bias,
    table,
    a,
    b,
    WORDS: tl.constexpr,
    BIAS: tl.constexpr,
    FUNCTION: tl.constexpr,
    COUNT: tl.constexpr,
    MASKED: tl.constexpr,
):
    """(t, f) of the columns ``index`` in the rows at ``base``; where MASKED, t is minus infinity beyond WORDS."""
    at = base[:, None] + index[None, :]
    if MASKED:
        inside = (index < WORDS)[None, :]
        z = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        if BIAS:
            z += tl.load(bias + index, mask=index < WORDS, other=0.0)[None, :]
        t, f, _ = transformed(z, table, a, b, COUNT, FUNCTION)
        t = tl.where(inside, t, -float("inf"))
    else:
        z = tl.load(at).to(tl.float32)
        if BIAS:
            z += tl.load(bias + index)[None, :]
        t, f, _ = transformed(z, table, a, b, COUNT, FUNCTION)
    return t, f


@triton.jit(do_not_specialize=_SIZES[:2], do_not_specialize_on_alignment=_PARTS[:1])
def statistics(  # type: ignore[no-untyped-def]
    logits,
    bias,
    targets,
    table,
    log_normaliser,
    log_p,
    stride,
    rows,
    experts,
    a,
    b,
    WORDS: tl.constexpr,
    BIAS: tl.constexpr,
    FUNCTION: tl.constexpr,
    COUNT: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Log-normaliser of ROWS rows, and log p of their targets.

    Exponentials are taken as they are: float32 holds every sum unless a row's log-normaliser lies beyond 80 or below
    -60, and only in that case is the row read again with a running maximum.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    present = row < rows
    # Rows that are not there read the last one: nothing in the loop needs a mask for them.
    base = logits + tl.minimum(row, rows - 1).to(tl.int64) * stride
    columns = tl.arange(0, BLOCK)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in tl.range(0, WHOLE, BLOCK, num_stages=STAGES):
        t, f = _tile(base, start + columns, bias, table, a, b, WORDS, BIAS, FUNCTION, COUNT, False)
        total += tl.exp2(t * LOG2E) * f
    if WHOLE < WORDS:
        t, f = _tile(base, WHOLE + columns, bias, table, a, b, WORDS, BIAS, FUNCTION, COUNT, True)
        total += tl.exp2(t * LOG2E) * f
    lse = tl.log(tl.sum(total, 1))
    if tl.max(tl.where((lse < 80.0) & (lse > -60.0), 0, 1), 0) == 1:
        largest = tl.full([ROWS, BLOCK], -3.0e38, tl.float32)
        total = tl.zeros([ROWS, BLOCK], tl.float32)
        for start in range(0, WORDS, BLOCK):
            t, f = _tile(base, start + columns, bias, table, a, b, WORDS, BIAS, FUNCTION, COUNT, True)
            difference = t - largest
            # One of the two exponentials of a running maximum is always that of zero.
            smaller = tl.exp(-tl.abs(difference))
            total = tl.where(difference > 0.0, total * smaller + f, total + smaller * f)
            largest = tl.maximum(largest, t)
        top = tl.max(largest, 1)
        lse = top + tl.log(tl.sum(total * tl.exp(largest - top[:, None]), 1))
    target = tl.load(targets + row // experts, mask=present, other=0)
    z = tl.load(base + target).to(tl.float32)
    if BIAS:
        z += tl.load(bias + target)
    t, f, _ = transformed(z, table, a, b, COUNT, FUNCTION)
    tl.store(log_normaliser + row, lse, mask=present)
    tl.store(log_p + row, t + tl.log(f) - lse, mask=present)


@triton.jit(do_not_specialize=[*_SIZES[1:], "log_eps", "uniform"], do_not_specialize_on_alignment=_PARTS[1:])
def mix(  # type: ignore[no-untyped-def]
    log_p,
    log_prior,
    row_weight,
    nll,
    share,
    of_log_prior,
    tokens,
    experts,
    log_eps,
    uniform,
    MIXED: tl.constexpr,
    UNIFORM: tl.constexpr,
    EPS: tl.constexpr,
    OF_PRIOR: tl.constexpr,
    EXPERTS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """Loss of TOKENS tokens, and the share w p_k / p of each of their experts."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    here = token < tokens
    lanes = tl.arange(0, EXPERTS)
    row = token[:, None] * experts + lanes[None, :]
    present = here[:, None] & (lanes < experts)[None, :]
    joint = tl.load(log_p + row, mask=present, other=-float("inf"))
    if MIXED:
        joint += tl.load(log_prior + row, mask=present, other=0.0)
    joint = tl.where(here[:, None], joint, 0.0)
    top = tl.max(joint, 1)
    top = tl.where(top == -float("inf"), 0.0, top)
    mixed = top + tl.log(tl.sum(tl.exp(joint - top[:, None]), 1))
    weight = tl.zeros_like(mixed) + uniform
    if not UNIFORM:
        weight = tl.load(row_weight + token, mask=here, other=0.0)
    likelihood = mixed
    if EPS:
        larger = tl.maximum(mixed, log_eps)
        likelihood = larger + tl.log(tl.exp(mixed - larger) + tl.exp(log_eps - larger))
        weight = weight * tl.exp(mixed - likelihood)
    part = weight[:, None] * tl.exp(joint - mixed[:, None])
    tl.store(nll + token, -likelihood, mask=here)
    tl.store(share + row, part, mask=present)
    if OF_PRIOR:
        tl.store(of_log_prior + row, -part, mask=present)


@triton.jit(do_not_specialize=["count"])
def _rescale(values, factor, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    by = tl.load(factor)
    if by != 1.0:
        for start in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
            index = start + tl.arange(0, BLOCK)
            inside = index < count
            tl.store(values + index, tl.load(values + index, mask=inside) * by, mask=inside)


def rescale_(values: Tensor, factor: Tensor) -> Tensor:
    """Multiply in place by a scalar tensor; where that is 1, the device finds out and leaves ``values`` alone."""
    if not values.is_contiguous() or values.dtype != factor.dtype or values.numel() >= 2**30:
        return values.mul_(factor)
    block = 2048
    programs = max(1, min(1024, triton.cdiv(values.numel(), block)))
    _rescale[(programs,)](values, factor, values.numel(), BLOCK=block)
    return values
