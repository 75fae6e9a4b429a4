"""How far a number may move before the gate does not hold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from suite.report.compare import t_quantile

# Of the mean. Another processor or release of torch rounds differently, and the same seed then ends elsewhere, even
# where seeds agree so well that their own interval is narrower than that.
NARROWEST = 0.005
# Of the mean. A move of twice this leaves the interval from either end: 3 % is always seen.
WIDEST = 0.015
# A busy machine slows the step and the yardstick alike, so their ratio keeps within a tenth; +40 % passes neither.
STEP_TIME = 1.25
# Bytes are counted and not sampled; what is left is the order in which a release of torch frees them.
STEP_MEMORY = 1.10


class Interval(NamedTuple):
    """Where a mean over seeds may lie."""

    low: float
    high: float


def quality_interval(values: Sequence[float]) -> Interval:
    """Where the mean of one metric over n seeds may lie when nothing but rounding has changed.

    Rounding makes training end elsewhere for the same seed, at worst as far away as for another seed. The interval is
    therefore that of the mean of n runs with seeds of their own, beside the mean of the n that it is learned from
    (a prediction interval at 95 %, variances equal)::

        mean ± max(t(0.975, n - 1) sd sqrt(1/n + 1/n), 0.005 |mean|)

    Args:
        values: the metric of each seed, two or more.
    """
    count, mean = len(values), statistics.fmean(values)
    spread = t_quantile(count - 1) * statistics.stdev(values) * math.sqrt(2 / count)
    half = max(spread, NARROWEST * abs(mean))
    return Interval(mean - half, mean + half)


def too_wide(interval: Interval) -> bool:
    """Whether an interval would let a move of 3 % pass."""
    return interval.high - interval.low > 2 * WIDEST * abs(interval.low + interval.high) / 2
