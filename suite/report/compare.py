"""Ours against theirs: the interval of a mean over seeds, and the verdict on a published number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from suite.records.published import DEFAULT_MARGIN, Value

CONFIDENCE = 0.95
HIGHER_IS_BETTER = frozenset({"mode_match"})


class Verdict(StrEnum):
    """What our runs say about a published number."""

    REPRODUCED = "reproduced"
    BETTER = "better"
    WORSE = "worse"
    INCONCLUSIVE = "inconclusive"
    SINGLE_RUN = "single run"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Summary:
    """n values over seeds: mean, sample standard deviation (n - 1) and the 95 % interval of the mean.

    ``sd``, ``low`` and ``high`` need two values; ``mean`` needs one.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """Mean, spread and Student's 95 % interval, mean ± t(n - 1, 0.975) sd / sqrt(n).

    Raises:
        ValueError: a value is not finite; a diverged run has a status and no number.
    """
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"not finite: {[value for value in values if not math.isfinite(value)]}")
    n = len(values)
    if n == 0:
        return Summary(0)
    mean = statistics.fmean(values)
    if n == 1:
        return Summary(1, mean)
    # scipy.special takes a quarter of a second to import, and a table of single runs does not need it.
    from scipy.special import stdtrit

    sd = statistics.stdev(values)
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def verdict(
    ours: Sequence[float] | Summary,
    published: Value,
    margin: float = DEFAULT_MARGIN,
    higher_is_better: bool = False,
) -> Verdict:
    """Judge a published value by our runs; ``margin`` is a fraction of that value.

    * reproduced: the 95 % interval of our mean lies within published ± margin.
    * better, worse: the interval lies entirely beyond the margin on the good or the bad side.
    * inconclusive: anything else with two runs or more; single run: n = 1; not run: n = 0.
    """
    summary = ours if isinstance(ours, Summary) else summarize(ours)
    if summary.n == 0:
        return Verdict.NOT_RUN
    if summary.low is None or summary.high is None:
        return Verdict.SINGLE_RUN
    width = margin * abs(published.value)
    floor, ceiling = published.value - width, published.value + width
    if floor <= summary.low and summary.high <= ceiling:
        return Verdict.REPRODUCED
    if summary.high < floor:
        return Verdict.WORSE if higher_is_better else Verdict.BETTER
    if summary.low > ceiling:
        return Verdict.BETTER if higher_is_better else Verdict.WORSE
    return Verdict.INCONCLUSIVE
