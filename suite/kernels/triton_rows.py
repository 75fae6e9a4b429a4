"""The elementwise work of the one-pass loss in Triton: g, the log-sum-exp, the mixture, and the logits' gradient.

Kernels over a chunk of logits [n K, width], a row a token's expert. ``statistics`` reads every row once: each lane
keeps a sum of its own, so a row is reduced across lanes once, at its end; then it turns a token's experts into its loss
and their shares, or leaves that to ``mix`` where their number would fill a tile badly. ``gradient`` reads the rows
again, writes the gradient, and sums it by column for the bias. Each takes the rows in the order in which they are
likeliest to be in the cache still. All statistics and sums are float32 whatever the logits are, and in a fixed order
(but for PLIF's, see ``add_to_pieces``), so runs repeat bit for bit.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from suite.kernels.triton_functions import (
    IDENTITY,
    LOG2E,
    NETWORK,
    PLIF,
    add_to_pieces,
    network_sums,
    transformed,
)

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


@triton.jit
def settle(  # type: ignore[no-untyped-def]
    joint,
    token,
    here,
    row,
    present,
    row_weight,
    nll,
    share,
    of_log_prior,
    log_eps,
    uniform,
    UNIFORM: tl.constexpr,
    EPS: tl.constexpr,
    OF_PRIOR: tl.constexpr,
):
    """Store the losses of tokens and the share w p_k / p of each expert; ``joint`` [tokens, experts] is log pi p."""
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


@triton.jit(do_not_specialize=[*_SIZES[:2], "log_eps", "uniform"], do_not_specialize_on_alignment=_PARTS)
def statistics(  # type: ignore[no-untyped-def]
    logits,
    bias,
    targets,
    table,
    log_normaliser,
    log_p,
    log_prior,
    row_weight,
    nll,
    share,
    of_log_prior,
    stride,
    rows,
    experts,
    a,
    b,
    log_eps,
    uniform,
    WORDS: tl.constexpr,
    BIAS: tl.constexpr,
    FUNCTION: tl.constexpr,
    COUNT: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    LAST_FIRST: tl.constexpr,
    SETTLES: tl.constexpr,
    TOKENS: tl.constexpr,
    EXPERTS: tl.constexpr,
    MIXED: tl.constexpr,
    UNIFORM: tl.constexpr,
    EPS: tl.constexpr,
    OF_PRIOR: tl.constexpr,
):
    """Log-normalisers of TOKENS x EXPERTS rows, and log p of their targets or, where SETTLES, what :func:`mix` makes.

    SETTLES: the rows are TOKENS tokens with up to EXPERTS experts each; otherwise EXPERTS is 1 and a row just a row.
    Exponentials are taken as they are: float32 holds every sum unless a row's log-normaliser lies beyond 80 or below
    -60, and only in that case is the row read again with a running maximum. LAST_FIRST: the order of the rows.
    """
    program = tl.program_id(0)
    if LAST_FIRST:
        program = tl.num_programs(0) - 1 - program
    lane = tl.arange(0, TOKENS * EXPERTS)
    if SETTLES:
        token, expert = program * TOKENS + lane // EXPERTS, lane % EXPERTS
        row = token * experts + tl.minimum(expert, experts - 1)
        present = (expert < experts) & (row < rows)
    else:
        row = program * TOKENS + lane
        token = row // experts
        present = row < rows
    # Rows that are not there read another one: nothing in the loop needs a mask for them.
    base = logits + tl.minimum(row, rows - 1).to(tl.int64) * stride
    columns = tl.arange(0, BLOCK)
    total = tl.zeros([TOKENS * EXPERTS, BLOCK], tl.float32)
    for start in tl.range(0, WHOLE, BLOCK, num_stages=STAGES):
        t, f = _tile(base, start + columns, bias, table, a, b, WORDS, BIAS, FUNCTION, COUNT, False)
        total += tl.exp2(t * LOG2E) * f
    if WHOLE < WORDS:
        t, f = _tile(base, WHOLE + columns, bias, table, a, b, WORDS, BIAS, FUNCTION, COUNT, True)
        total += tl.exp2(t * LOG2E) * f
    lse = tl.log(tl.sum(total, 1))
    if tl.max(tl.where((lse < 80.0) & (lse > -60.0), 0, 1), 0) == 1:
        largest = tl.full([TOKENS * EXPERTS, BLOCK], -3.0e38, tl.float32)
        total = tl.zeros([TOKENS * EXPERTS, BLOCK], tl.float32)
        for start in range(0, WORDS, BLOCK):
            t, f = _tile(base, start + columns, bias, table, a, b, WORDS, BIAS, FUNCTION, COUNT, True)
            difference = t - largest
            # One of the two exponentials of a running maximum is always that of zero.
            smaller = tl.exp(-tl.abs(difference))
            total = tl.where(difference > 0.0, total * smaller + f, total + smaller * f)
            largest = tl.maximum(largest, t)
        top = tl.max(largest, 1)
        lse = top + tl.log(tl.sum(total * tl.exp(largest - top[:, None]), 1))
    target = tl.load(targets + token, mask=present, other=0)
    z = tl.load(base + target).to(tl.float32)
    if BIAS:
        z += tl.load(bias + target)
    t, f, _ = transformed(z, table, a, b, COUNT, FUNCTION)
    tl.store(log_normaliser + row, lse, mask=present)
    joint = t + tl.log(f) - lse
    if SETTLES:
        if MIXED:
            joint += tl.load(log_prior + row, mask=present, other=0.0)
        here = program * TOKENS + tl.arange(0, TOKENS) < rows // experts
        joint = tl.where(expert < experts, joint, -float("inf"))
        settle(
            tl.reshape(joint, (TOKENS, EXPERTS)),
            program * TOKENS + tl.arange(0, TOKENS),
            here,
            tl.reshape(row, (TOKENS, EXPERTS)),
            tl.reshape(present, (TOKENS, EXPERTS)),
            row_weight,
            nll,
            share,
            of_log_prior,
            log_eps,
            uniform,
            UNIFORM,
            EPS,
            OF_PRIOR,
        )
    else:
        tl.store(log_p + row, joint, mask=present)


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
    settle(
        joint,
        token,
        here,
        row,
        present,
        row_weight,
        nll,
        share,
        of_log_prior,
        log_eps,
        uniform,
        UNIFORM,
        EPS,
        OF_PRIOR,
    )


@triton.jit
def _gradient_rows(  # type: ignore[no-untyped-def]
    logits,
    out,
    offset,
    targets,
    table,
    log_normaliser,
    share,
    sums,
    fixed,
    stride,
    out_stride,
    rows,
    experts,
    a,
    b,
    factor,
    group,
    WORDS: tl.constexpr,
    WIDTH: tl.constexpr,
    OF_BIAS: tl.constexpr,
    FUNCTION: tl.constexpr,
    COUNT: tl.constexpr,
    SUMS: tl.constexpr,
    COPIES: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    PLAIN: tl.constexpr,
):
    """The loop of :func:`gradient` over its group's rows; returns the sums by column [ROWS, BLOCK].

    PLAIN: every row and column is there, and no target lies among them, as nearly everywhere. A third of the
    instructions then remain, and it is their number that bounds this kernel, not the memory.
    """
    block = tl.program_id(0)
    index = block * BLOCK + tl.arange(0, BLOCK)
    column_sums = tl.zeros([ROWS, BLOCK], tl.float32)
    for first in tl.range(0, GROUP, ROWS, num_stages=STAGES):
        row = group * GROUP + first + tl.arange(0, ROWS)
        at = row.to(tl.int64)[:, None] * stride + index[None, :]
        to = row.to(tl.int64)[:, None] * out_stride + index[None, :]
        if PLAIN:
            lse = tl.load(log_normaliser + row)
            part = tl.load(share + row)
            z = tl.load(logits + at).to(tl.float32) + offset[None, :]
            t, f, slope = transformed(z, table, a, b, COUNT, FUNCTION)
            of_t = part[:, None] * (tl.exp2(t * LOG2E - (lse * LOG2E)[:, None]) * f)
        else:
            present = row < rows
            word = index < WORDS
            # A row's length in memory is even where the number of words is not, and only even masks let loads be wide.
            filled = present[:, None] & (index < WIDTH)[None, :]
            lse = tl.load(log_normaliser + row, mask=present, other=0.0)
            part = tl.load(share + row, mask=present, other=0.0)
            target = tl.load(targets + row // experts, mask=present, other=-1)
            z = tl.load(logits + at, mask=filled, other=0.0).to(tl.float32) + offset[None, :]
            t, f, slope = transformed(z, table, a, b, COUNT, FUNCTION)
            p = tl.exp2(t * LOG2E - (lse * LOG2E)[:, None]) * f
            hit = index[None, :] == target[:, None]
            inside = present[:, None] & word[None, :]
            of_t = tl.where(inside, part[:, None] * (p - tl.where(hit, 1.0, 0.0)), 0.0)
            if FUNCTION == PLIF and SUMS != 0:
                copy = (block + group) % COPIES
                add_to_pieces(z, of_t, inside, sums + copy * (2 * COUNT), fixed, a, b, COUNT, SUMS)
            if FUNCTION == NETWORK and SUMS != 0:
                program = group * tl.num_programs(0) + block
                network_sums(z, of_t, table, sums + program * (1 + 3 * COUNT), COUNT)
        of_z = of_t
        if FUNCTION != IDENTITY:
            of_z = of_t * slope
        if OF_BIAS:
            column_sums += of_z
        scaled = (of_z * factor).to(out.dtype.element_ty)
        if PLAIN:
            tl.store(out + to, scaled)
        else:
            tl.store(out + to, scaled, mask=filled)
    return column_sums


@triton.jit(do_not_specialize=[*_SIZES[:2], "host_scale"], do_not_specialize_on_alignment=_PARTS[:1])
def gradient(  # type: ignore[no-untyped-def]
    logits,
    out,
    bias,
    targets,
    table,
    log_normaliser,
    share,
    scale,
    of_bias,
    sums,
    fixed,
    stride,
    out_stride,
    rows,
    experts,
    a,
    b,
    host_scale,
    WORDS: tl.constexpr,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    OF_BIAS: tl.constexpr,
    SCALE: tl.constexpr,
    FUNCTION: tl.constexpr,
    COUNT: tl.constexpr,
    SUMS: tl.constexpr,
    COPIES: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    LAST_FIRST: tl.constexpr,
):
    """Gradient of BLOCK columns in GROUP rows; columns beyond WORDS become zero.

    ``of_bias`` [groups, WIDTH] collects the sums over a group's rows, chunk after chunk. SCALE: 0 none, 1 a number,
    2 a tensor. SUMS: how ``sums`` of g's own parameters are taken, 0 not at all; see ``add_to_pieces``.
    """
    block, group = tl.program_id(0), tl.program_id(1)
    if LAST_FIRST:
        group = tl.num_programs(1) - 1 - group
    index = block * BLOCK + tl.arange(0, BLOCK)
    word = index < WORDS
    offset = tl.zeros([BLOCK], tl.float32)
    if BIAS:
        offset = tl.load(bias + index, mask=word, other=0.0)
    factor = 1.0
    if SCALE == 1:
        factor = host_scale
    if SCALE == 2:
        factor = tl.load(scale)
    plain = False
    if SUMS == 0:
        row = group * GROUP + tl.arange(0, GROUP)
        target = tl.load(targets + row // experts, mask=row < rows, other=-1)
        hits = tl.sum(((target >= block * BLOCK) & (target < (block + 1) * BLOCK)).to(tl.int32), 0)
        plain = (hits == 0) & ((block + 1) * BLOCK <= WORDS) & ((group + 1) * GROUP <= rows)
    if plain:
        column_sums = _gradient_rows(
            logits,
            out,
            offset,
            targets,
            table,
            log_normaliser,
            share,
            sums,
            fixed,
            stride,
            out_stride,
            rows,
            experts,
            a,
            b,
            factor,
            group,
            WORDS,
            WIDTH,
            OF_BIAS,
            FUNCTION,
            COUNT,
            SUMS,
            COPIES,
            GROUP,
            ROWS,
            BLOCK,
            STAGES,
            PLAIN=True,
        )
    else:
        column_sums = _gradient_rows(
            logits,
            out,
            offset,
            targets,
            table,
            log_normaliser,
            share,
            sums,
            fixed,
            stride,
            out_stride,
            rows,
            experts,
            a,
            b,
            factor,
            group,
            WORDS,
            WIDTH,
            OF_BIAS,
            FUNCTION,
            COUNT,
            SUMS,
            COPIES,
            GROUP,
            ROWS,
            BLOCK,
            STAGES,
            PLAIN=False,
        )
    if OF_BIAS:
        collected = of_bias + group.to(tl.int64) * WIDTH + index
        before = tl.load(collected, mask=word, other=0.0)
        tl.store(collected, before + tl.sum(column_sums, 0), mask=word)


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
