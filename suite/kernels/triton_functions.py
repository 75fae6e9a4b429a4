"""The pointwise functions inside the Triton row kernels.

Every g is given as a pair (t, f) with exp(g(z)) = exp(t) f, f = 1 but for sigsoftmax: exp(g) = exp(z) sigmoid(z) then
takes two exponentials and a reciprocal, and neither a logarithm nor a further exponential. With them comes the slope
g'(z), which shares most of the work; a kernel that does not use it does not compute it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

# Exponentials and logarithms are those of base two: one instruction each, where the natural ones take four more for
# numbers below the smallest normal one.
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# Triton's interpreter has no instructions.
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

IDENTITY = tl.constexpr(0)
# GSS with k = 2 (sigsoftmax: c = 0) and with any k; `a` is c, `b` is k.
SIGSOFTMAX = tl.constexpr(1)
GSS = tl.constexpr(2)
# `table` [knots] of int64 holds slope (low half) and start of every piece, so that one load brings both; `a` is the
# bound, `b` the pieces per unit, COUNT the pieces.
PLIF = tl.constexpr(3)
# `table` [1 + 3 units]: the linear term, then u, b and v of every unit; COUNT the units.
NETWORK = tl.constexpr(4)


@triton.jit
def _piece(z, a, b, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The piece z falls on and its distance from the left knot; the end pieces extend, a NaN falls on some piece."""
    at = tl.minimum(tl.maximum(tl.floor((z + a) * b), 0.0), COUNT - 1.0)
    at = tl.where(z == z, at, 0.0)
    return at.to(tl.int32), z - (at * (2.0 * a / COUNT) - a)


@triton.jit
def _reciprocal(x):  # type: ignore[no-untyped-def]
    """1 / x in one instruction, to two units in the last place; zero from 2^126 on."""
    if _INTERPRETED:
        y = 1.0 / x
    else:
        y = libdevice.fast_dividef(1.0, x)
    return y


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    return 1.0 - 2.0 * _reciprocal(1.0 + tl.exp2(x * (2.0 * LOG2E)))


@triton.jit
def transformed(z, table, a, b, COUNT: tl.constexpr, FUNCTION: tl.constexpr):  # type: ignore[no-untyped-def]
    """(t, f, slope) of the module's docstring."""
    t = z
    f = tl.full(z.shape, 1.0, tl.float32)
    slope = f
    if FUNCTION == SIGSOFTMAX:
        x = z - a
        u = tl.exp2(tl.abs(x) * -LOG2E)
        f = _reciprocal(1.0 + u)
        t = z + tl.minimum(x, 0.0)
        slope = 1.0 + tl.where(x >= 0.0, u, 1.0) * f
    if FUNCTION == GSS:
        x = z - a
        u = tl.exp2(tl.abs(x) * -LOG2E)
        t = z + (b - 1.0) * (tl.minimum(x, 0.0) - tl.log2(1.0 + u) * LN2)
        slope = 1.0 + (b - 1.0) * tl.where(x >= 0.0, u, 1.0) * _reciprocal(1.0 + u)
    if FUNCTION == PLIF:
        piece, offset = _piece(z, a, b, COUNT)
        both = tl.load(table + piece)
        slope = both.to(tl.int32).to(tl.float32, bitcast=True)
        t = slope * offset + (both >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    if FUNCTION == NETWORK:
        linear = tl.load(table)
        t = z * linear
        slope = slope * linear
        for unit in range(COUNT):
            u = tl.load(table + 1 + unit)
            v = tl.load(table + 1 + 2 * COUNT + unit)
            h = _tanh(z * u + tl.load(table + 1 + COUNT + unit))
            t += v * h
            slope += v * u * (1.0 - h * h)
    return t, f, slope


@triton.jit
def add_to_pieces(z, of_t, inside, sums, fixed, a, b, COUNT: tl.constexpr, FORM: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add to the pieces' ``sums`` [knots, 2] what their slopes get, of_t times the distance from the knot, and of_t.

    FORM: 1 scalar atomics; 2 one vector instruction an element (from sm_90 on; the tile must have an element a
    thread, or it would be repeated); 3 fixed point in int64, the same in any order, ``fixed`` [2] holds the factors.
    """
    piece, offset = _piece(z, a, b, COUNT)
    at = sums + 2 * piece
    if FORM == 1:
        tl.atomic_add(at, of_t * offset, mask=inside, sem="relaxed")
        tl.atomic_add(at + 1, of_t, mask=inside, sem="relaxed")
    if FORM == 2:
        tl.inline_asm_elementwise(
            """
            {
                .reg .pred p;
                setp.ne.s32 p, $4, 0;
                @p red.global.add.v2.f32 [$1], {$2, $3};
                mov.u32 $0, 0;
            }
            """,
            "=r,l,f,f,r",
            [at.to(tl.int64), of_t * offset, of_t, inside.to(tl.int32)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    if FORM == 3:
        of_slope = (of_t * offset * tl.load(fixed)).to(tl.int64)
        of_start = (of_t * tl.load(fixed + 1)).to(tl.int64)
        tl.atomic_add(at, of_slope, mask=inside, sem="relaxed")
        tl.atomic_add(at + 1, of_start, mask=inside, sem="relaxed")


@triton.jit
def network_sums(z, of_t, table, sums, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store this tile's part of the gradients by the network's table at ``sums`` [1 + 3 units]."""
    tl.store(sums, tl.sum(tl.sum(of_t * z, 1), 0))
    for unit in range(COUNT):
        u = tl.load(table + 1 + unit)
        h = _tanh(z * u + tl.load(table + 1 + COUNT + unit))
        inner = of_t * (1.0 - h * h) * tl.load(table + 1 + 2 * COUNT + unit)
        tl.store(sums + 1 + unit, tl.sum(tl.sum(inner * z, 1), 0))
        tl.store(sums + 1 + COUNT + unit, tl.sum(tl.sum(inner, 1), 0))
        tl.store(sums + 1 + 2 * COUNT + unit, tl.sum(tl.sum(of_t * h, 1), 0))
