"""Two pieces of work timed in turn, so that what slows the machine slows both."""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable

PAIRS = 60
WARM_UP = 5
ATTEMPTS = 4  # times PAIRS at most


def preemptions() -> int:
    """How often the kernel has taken the core away from this thread (of the process where it does not tell)."""
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nivcsw


def median_ratio(
    ours: Callable[[], object],
    reference: Callable[[], object],
    pairs: int = PAIRS,
    clock: Callable[[], float] = time.perf_counter,
    interrupted: Callable[[], int] = preemptions,
) -> float:
    """Median over pairs of the wall time of ``ours`` as a multiple of that of ``reference``.

    The two of a pair run back to back, each first in every other pair. A pair in which another process was given the
    core says how busy the machine is, and counts only where too few are left without; sleeping is a step's own affair
    and does count. The first pairs warm up.
    """

    def seconds(work: Callable[[], object]) -> float:
        began = clock()
        work()
        return clock() - began

    quiet: list[float] = []
    disturbed: list[float] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for pair in range(WARM_UP + ATTEMPTS * pairs):
            before = interrupted()
            if pair % 2:
                theirs, own = seconds(reference), seconds(ours)
            else:
                own, theirs = seconds(ours), seconds(reference)
            if pair >= WARM_UP:
                (quiet if interrupted() == before else disturbed).append(own / theirs)
            if len(quiet) == pairs:
                break
    finally:
        if collecting:
            gc.enable()
    return statistics.median(quiet if 4 * len(quiet) >= pairs else quiet + disturbed)
