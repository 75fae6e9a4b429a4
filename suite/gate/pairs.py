"""Two pieces of work timed in turn, so that what slows the machine slows both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

PAIRS = 60
WARM_UP = 5


def median_ratio(
    ours: Callable[[], object],
    reference: Callable[[], object],
    pairs: int = PAIRS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median over pairs of the wall time of ``ours`` as a multiple of that of ``reference``.

    The two of a pair run back to back, each first in every other pair; what interrupts one of them makes an outlier
    that the median passes over. The first pairs warm up and do not count.
    """

    def seconds(work: Callable[[], object]) -> float:
        began = clock()
        work()
        return clock() - began

    ratios = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for pair in range(WARM_UP + pairs):
            if pair % 2:
                theirs, own = seconds(reference), seconds(ours)
            else:
                own, theirs = seconds(ours), seconds(reference)
            if pair >= WARM_UP:
                ratios.append(own / theirs)
    finally:
        if collecting:
            gc.enable()
    return statistics.median(ratios)
