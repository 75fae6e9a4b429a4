"""Effective ranks of a cell: as its runs counted them or, of runs that did not, by the spectrum in their records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from suite.records.record import Record
from suite.report.cells import Cell, results
from suite.report.compare import Summary, summarize

EFFECTIVE = "effective_rank_"
FRACTIONS = ("1e-5", "1e-4", "1e-3")
_TINY = 1e-300  # for a singular value of exactly zero


def effective_rank(cell: Cell, split: str, metric: str) -> Summary:
    """``effective_rank_1e-3`` of a split over seeds; nothing of runs that took no rank."""

    def of(record: Record) -> float | None:
        scores = results(record)[cell.key.stage].get(split, {})
        if metric in scores or "rank" not in scores:
            return scores.get(metric)
        pairs = record.spectra.get(f"rank {split}")
        return from_spectrum(pairs, float(metric.removeprefix(EFFECTIVE))) if pairs else None

    return summarize(cell.values_by(of))


def from_spectrum(pairs: Sequence[Sequence[float]], fraction: float) -> float:
    """The least rank that leaves out at most ``fraction`` of the squared singular values.

    ``pairs`` are (index from 1, s / s_0), at most 200 of them; between them the logarithm of s is a line in the index.
    """
    logs = [(int(place), math.log(max(value, _TINY))) for place, value in pairs]
    squares = [math.exp(2.0 * logs[0][1])]
    for (start, high), (end, low) in pairwise(logs):
        slope = (low - high) / (end - start)
        squares += [math.exp(2.0 * (high + slope * step)) for step in range(1, end - start + 1)]
    squares_from = list(accumulate(reversed(squares)))
    return float(sum(left > fraction * squares_from[-1] for left in squares_from))
