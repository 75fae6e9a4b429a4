"""The constants of the GPU kernels of the loss."""

from __future__ import annotations

from typing import NamedTuple


class Tuning(NamedTuple):
    """Constants of the kernels; the defaults are the fastest of the sweeps that ``make bench-gpu`` prints."""

    # Logits of one chunk, half-precision or float32, the last with gradients beside them: large chunks for the
    # products, small ones for the memory.
    chunk_bytes: tuple[int, int, int] = (52 * 2**20, 104 * 2**20, 72 * 2**20)
    # Elements a program holds at a time in each kernel, and most rows it does so for at once.
    statistics_tile: int = 2048
    gradient_tile: int = 2048
    rows: int = 4
    warps: int = 4
    stages: int = 3  # tiles that are loaded ahead, but for the heavier functions, whose look-ups that slows
    programs: int = 1000  # at least so many in the gradient's kernel, before its groups of rows grow
    wide_logits: bool = True  # float32 logits for float16 operands
    half_gradients: bool = True  # float16 operands of the gradients' products in TF32
    # Pieces of PLIF whose sums are taken in shared memory, and the logits of a call from which on that pays; 0 pieces:
    # every sum by atomics in global memory.
    window: int = 28_672
    window_from: int = 4_000_000
    # Pieces of PLIF whose slopes and starts are looked up in shared memory, from as many logits on; 0: by Triton.
    looked_up: int = 28_672
    # Of those atomics: copies of the sums, and whether one instruction adds to both.
    copies: int = 1
    vector_atomics: bool = True
    # The statistics begin with the rows that the product made last, and the gradient with those read last then;
    # otherwise the other way round.
    turned: bool = True
    # The statistics settle a token's loss if its experts fill so much of a tile, and a chunk has so many tokens.
    settles: float = 0.75
    settles_from: int = 64
    most_warps: int = 16  # of a tile that holds one token's experts
