"""A chunk's logits and their statistics in one kernel: the log-sum-exp begins in the product's own registers.

Each program multiplies one tile, stores it, and leaves for each of its rows the largest t and the sum of exp(t) against
it; :func:`combine` puts the tiles of a token's experts together and goes on to its loss. The logits are then read once
more, for the gradient, instead of twice.
"""

from __future__ import annotations

import triton
import triton.language as tl

from suite.kernels.triton_functions import LOG2E, transformed
from suite.kernels.triton_rows import settle

_SIZES = ["rows", "most_rows", "experts"]
_PARTS = ["targets", "log_prior", "row_weight", "nll", "of_log_prior"]


@triton.jit(do_not_specialize=_SIZES[:2])
def logits_and_sums(  # type: ignore[no-untyped-def]
    latent,
    words,
    out,
    bias,
    table,
    largest,
    total,
    latent_stride,
    words_stride,
    out_stride,
    rows,
    most_rows,
    a,
    b,
    SIZE: tl.constexpr,
    WORDS: tl.constexpr,
    WIDTH: tl.constexpr,
    BIAS: tl.constexpr,
    FUNCTION: tl.constexpr,
    COUNT: tl.constexpr,
    TOGETHER: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One tile of ``out`` [rows, WIDTH] = latent [rows, SIZE] words^T [WIDTH, SIZE], and its row's ``largest`` and
    ``total`` [tiles, most_rows]. TOGETHER: tiles of rows that programs take side by side, for the cache to serve both.
    """
    down, across = tl.cdiv(rows, ROWS), tl.cdiv(WIDTH, COLUMNS)
    program = tl.program_id(0)
    band = program // (TOGETHER * across)
    first = band * TOGETHER
    high = tl.minimum(down - first, TOGETHER)
    place = program % (TOGETHER * across)
    tile_row, tile = first + place % high, place // high
    row = tile_row * ROWS + tl.arange(0, ROWS)
    column = tile * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    # What is not there is read from the last row or word, and never stored or counted.
    at_row = tl.minimum(row, rows - 1).to(tl.int64)[:, None] * latent_stride
    at_word = tl.minimum(column, WIDTH - 1).to(tl.int64)[None, :] * words_stride
    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, SIZE, DEPTH):
        inside = start + depth < SIZE
        x = tl.load(latent + at_row + (start + depth)[None, :], mask=inside[None, :], other=0.0)
        w = tl.load(words + at_word + (start + depth)[:, None], mask=inside[:, None], other=0.0)
        product = tl.dot(x, w, product)
    stored = product.to(out.dtype.element_ty)
    here = (row < rows)[:, None] & (column < WIDTH)[None, :]
    tl.store(out + row.to(tl.int64)[:, None] * out_stride + column[None, :], stored, mask=here)
    z = stored.to(tl.float32)
    word = column < WORDS
    if BIAS:
        z += tl.load(bias + column, mask=word, other=0.0)[None, :]
    t, f, _ = transformed(z, table, a, b, COUNT, FUNCTION)
    t = tl.where(word[None, :], t, -float("inf"))
    top = tl.max(t, 1)
    against = tl.where(top == -float("inf"), 0.0, top)
    at = tile * most_rows + row
    tl.store(largest + at, top, mask=row < rows)
    tl.store(total + at, tl.sum(tl.exp2(t * LOG2E - (against * LOG2E)[:, None]) * f, 1), mask=row < rows)


@triton.jit(do_not_specialize=[*_SIZES[1:], "log_eps", "uniform"], do_not_specialize_on_alignment=_PARTS)
def combine(  # type: ignore[no-untyped-def]
    logits,
    bias,
    targets,
    table,
    largest,
    total,
    log_normaliser,
    log_prior,
    row_weight,
    nll,
    share,
    of_log_prior,
    stride,
    most_rows,
    experts,
    a,
    b,
    log_eps,
    uniform,
    BIAS: tl.constexpr,
    FUNCTION: tl.constexpr,
    COUNT: tl.constexpr,
    MIXED: tl.constexpr,
    UNIFORM: tl.constexpr,
    EPS: tl.constexpr,
    OF_PRIOR: tl.constexpr,
    EXPERTS: tl.constexpr,
    TILES: tl.constexpr,
    MOST_TILES: tl.constexpr,
):
    """Log-normalisers of one token's experts from their tiles, its loss, and the experts' shares."""
    token = tl.program_id(0) + tl.zeros([1], tl.int32)
    lanes = tl.arange(0, EXPERTS)
    row = token[:, None] * experts + lanes[None, :]
    present = (lanes < experts)[None, :]
    tiles = tl.arange(0, MOST_TILES)
    at = tiles[:, None] * most_rows + tl.program_id(0) * experts + lanes[None, :]
    here = (tiles < TILES)[:, None] & present
    top = tl.load(largest + at, mask=here, other=-float("inf"))
    sums = tl.load(total + at, mask=here, other=0.0)
    most = tl.max(top, 0)
    against = tl.where(most == -float("inf"), 0.0, most)
    whole = tl.sum(sums * tl.exp(top - against[None, :]), 0)
    lse = (against + tl.log(tl.where(lanes < experts, whole, 1.0)))[None, :]
    target = tl.load(targets + tl.program_id(0))
    z = tl.load(logits + row.to(tl.int64) * stride + target, mask=present, other=0.0).to(tl.float32)
    if BIAS:
        z += tl.load(bias + target)
    t, f, _ = transformed(z, table, a, b, COUNT, FUNCTION)
    joint = t + tl.log(f) - lse
    if MIXED:
        joint += tl.load(log_prior + row, mask=present, other=0.0)
    joint = tl.where(present, joint, -float("inf"))
    tl.store(log_normaliser + row, lse, mask=present)
    settle(
        joint,
        token,
        token >= 0,
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
