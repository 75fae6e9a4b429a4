"""The gradient by the logits of the one-pass loss in Triton: see :mod:`suite.kernels.triton_rows`."""

from __future__ import annotations

import triton
import triton.language as tl

from suite.kernels.triton_functions import (
    IDENTITY,
    LOG2E,
    NETWORK,
    PLIF,
    add_to_pieces,
    network_sums,
    transformed,
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


@triton.jit(do_not_specialize=["rows", "experts", "host_scale"], do_not_specialize_on_alignment=["targets"])
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
):
    """Gradient of BLOCK columns in GROUP rows; columns beyond WORDS become zero.

    ``of_bias`` [groups, WIDTH] collects the sums over a group's rows, chunk after chunk. SCALE: 0 none, 1 a number,
    2 a tensor. SUMS: how ``sums`` of g's own parameters are taken, 0 not at all; see ``add_to_pieces``.
    """
    block = tl.program_id(0)
    group = tl.num_programs(1) - 1 - tl.program_id(1)
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
