"""Clipping, update and running averages of every parameter in two launches: see :mod:`suite.training.multi_tensor`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def square_sums(  # type: ignore[no-untyped-def]
    gradients, tensor_of, offset_of, sizes, partial, TILES: tl.constexpr, BLOCK: tl.constexpr
):
    """Sum of squares of one piece of a gradient into ``partial``."""
    piece = tl.program_id(0)
    tensor = tl.load(tensor_of + piece)
    offset = tl.load(offset_of + piece)
    size = tl.load(sizes + tensor)
    gradient = tl.load(gradients + tensor).to(tl.pointer_type(tl.float32))
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for tile in range(TILES):
        at = offset + tile * BLOCK + tl.arange(0, BLOCK)
        g = tl.load(gradient + at, mask=at < size, other=0.0)
        total += g * g
    tl.store(partial + piece, tl.sum(total, 0))


@triton.jit
def update(  # type: ignore[no-untyped-def]
    gradients,
    parameters,
    averages,
    rates,
    tensor_of,
    offset_of,
    sizes,
    partial,
    factor,
    counts,
    taken,
    scale,
    clip,
    weight_decay,
    PIECES: tl.constexpr,
    TENSORS: tl.constexpr,
    AVERAGES: tl.constexpr,
    CLIP: tl.constexpr,
    STEP: tl.constexpr,
    LANES: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """p -= rate factor (coefficient g + decay p) on one piece, then every average of it; nothing if g is not finite."""
    piece = tl.program_id(0)
    tensor = tl.load(tensor_of + piece)
    offset = tl.load(offset_of + piece)
    size = tl.load(sizes + tensor)
    coefficient = 0.0
    if STEP:
        lanes = tl.arange(0, LANES)
        total = tl.zeros((LANES,), dtype=tl.float32)
        for start in range(0, PIECES, LANES):
            total += tl.load(partial + start + lanes, mask=start + lanes < PIECES, other=0.0)
        norm = tl.sqrt(tl.sum(total, 0)) / scale
        finite = norm < float("inf")
        coefficient = 1.0 / scale
        if CLIP:
            coefficient = coefficient * tl.minimum(clip / (norm + 1e-6), 1.0)
        if piece == 0:
            tl.store(taken, tl.where(finite, 1, 0))
        size = tl.where(finite, size, 0)
    rate = tl.load(rates + tensor) * tl.load(factor)
    parameter = tl.load(parameters + tensor).to(tl.pointer_type(tl.float32))
    gradient = tl.load(gradients + tensor).to(tl.pointer_type(tl.float32))
    for tile in range(TILES):
        at = offset + tile * BLOCK + tl.arange(0, BLOCK)
        inside = at < size
        p = tl.load(parameter + at, mask=inside, other=0.0)
        if STEP:
            g = tl.load(gradient + at, mask=inside, other=0.0)
            p = p - rate * (coefficient * g + weight_decay * p)
            tl.store(parameter + at, p, mask=inside)
        for index in tl.static_range(AVERAGES):
            mean = tl.load(averages + index * TENSORS + tensor).to(tl.pointer_type(tl.float32))
            weight = 1.0 / tl.maximum(tl.load(counts + index), 1).to(tl.float32)
            a = tl.load(mean + at, mask=inside, other=0.0)
            # As torch's lerp computes it: exact at both ends.
            a = tl.where(weight < 0.5, a + weight * (p - a), p - (p - a) * (1.0 - weight))
            tl.store(mean + at, a, mask=inside)
