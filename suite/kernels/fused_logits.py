"""Launches of the kernels that make logits and their statistics together: see :mod:`suite.kernels.triton_logits`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from suite.kernels import triton_logits as kernels


class Tile(NamedTuple):
    """Sizes of a program's product, and how it runs."""

    rows: int = 128
    columns: int = 128
    depth: int = 64
    warps: int = 8
    stages: int = 3
    together: int = 8


class LogitTiles:
    """Sums of every tile of a chunk, from the product that makes it to the loss.

    Args:
        rows: of the largest chunk.
        width: of a row of logits in memory.
        words: of them that count.
        tile: see there.
        device: where.
    """

    def __init__(self, rows: int, width: int, words: int, tile: Tile, device: torch.device) -> None:
        self._rows, self._width, self._words, self._tile = rows, width, words, tile
        self._tiles = triton.cdiv(width, tile.columns)
        self._largest, self._total = torch.empty(2, self._tiles, rows, device=device)

    def make(self, latent: Tensor, words: Tensor, z: Tensor, function: tuple[Any, ...], shared: dict[str, Any]) -> None:
        """Fill ``z`` [rows, width] and keep its tiles' sums; ``function``: bias, table, a, b."""
        tile, (bias, table, a, b) = self._tile, function
        grid = (triton.cdiv(z.shape[0], tile.rows) * self._tiles,)
        kernels.logits_and_sums[grid](
            latent,
            words,
            z,
            bias,
            table,
            self._largest,
            self._total,
            latent.stride(0),
            words.stride(0),
            z.stride(0),
            z.shape[0],
            self._rows,
            a,
            b,
            SIZE=latent.shape[1],
            WORDS=self._words,
            WIDTH=self._width,
            TOGETHER=tile.together,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            DEPTH=tile.depth,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **shared,
        )

    def combine(
        self,
        z: Tensor,
        targets: Tensor,
        log_normaliser: Tensor,
        function: tuple[Any, ...],
        mixture: dict[str, Any],
        shared: dict[str, Any],
    ) -> None:
        """The losses of the tokens in ``z``; ``mixture``: what :func:`suite.kernels.triton_rows.mix` takes besides."""
        bias, table, a, b = function
        kernels.combine[(targets.shape[0],)](
            z,
            bias,
            targets,
            table,
            self._largest,
            self._total,
            log_normaliser,
            stride=z.stride(0),
            most_rows=self._rows,
            a=a,
            b=b,
            TILES=self._tiles,
            MOST_TILES=triton.next_power_of_2(self._tiles),
            num_warps=4,
            **mixture,
            **shared,
        )
