"""Ours against theirs: the interval of a mean over seeds, and the verdict on a published number."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from suite.records.published import DEFAULT_MARGIN, Value

CONFIDENCE = 0.95
HIGHER_IS_BETTER = frozenset({"mode_match", "ppl_gain", "bpc_gain"})
# The level below which a p-value says that two heads differ.
SIGNIFICANT = 1 - CONFIDENCE
# fmt: off
_T_975 = (
    12.7062047362, 4.3026527297, 3.1824463053, 2.7764451052, 2.5705818356, 2.4469118511, 2.3646242516, 2.3060041352,
    2.2621571628, 2.2281388520, 2.2009851601, 2.1788128297, 2.1603686565, 2.1447866879, 2.1314495456, 2.1199052992,
    2.1098155778, 2.1009220402, 2.0930240544, 2.0859634473, 2.0796138447, 2.0738730679, 2.0686576104, 2.0638985616,
    2.0595385528, 2.0555294386, 2.0518305165, 2.0484071418, 2.0452296421, 2.0422724563,
)
# fmt: on


class Verdict(StrEnum):
    """What our runs say about a published number."""

    REPRODUCED = "reproduced"
    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"
    INCONCLUSIVE = "inconclusive"
    SINGLE_RUN = "single run"
    NOT_RUN = "not run"
    PARTIAL = "partial"
    UNAVAILABLE = "data not available"


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


def t_quantile(degrees: float) -> float:
    """Student's t at 0.975, right to 1e-7.

    Whole degrees of freedom to 30 from a table, above 30 the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5),
    fractions below 30 (Welch) by the distribution itself; scipy has all of it, and takes a quarter of a second to
    import, which a report that must answer at once does not have.

    Raises:
        ValueError: fewer than one degree of freedom.
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom; a spread needs at least two values")
    if degrees <= len(_T_975):
        return _T_975[int(degrees) - 1] if degrees == int(degrees) else _t_by_newton(degrees)
    z = statistics.NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * degrees**4)
    )


def _t_by_newton(degrees: float) -> float:
    """The quantile falls as the degrees rise, so the next whole number's lies below it.

    The distribution is concave there: steps from below never pass the quantile.
    """
    t = _T_975[min(int(degrees), len(_T_975) - 1)]
    constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    for _ in range(50):
        density = constant * (1 + t * t / degrees) ** (-(degrees + 1) / 2)
        step = (t_tails(t, degrees) - (1 - CONFIDENCE)) / (2 * density)
        t += step
        if abs(step) < 1e-9:
            break
    return t


def t_tails(t: float, degrees: float) -> float:
    """P(|T| > t) for Student's T, right to 1e-9 of itself however small: a tail of the incomplete beta function."""
    x = degrees / (degrees + t * t)
    a, b = degrees / 2, 0.5
    # The continued fraction is quick on this side of the mean only; beyond it the other tail is taken.
    if x < (a + 1) / (a + b + 2):
        return _beta_tail(x, 1 - x, a, b)
    return 1 - _beta_tail(t * t / (degrees + t * t), x, b, a)


def _beta_tail(x: float, rest: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), ``rest`` being 1 - x, by Lentz's continued fraction."""
    if x <= 0.0:
        return 0.0
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    fraction = d
    for m in range(1, 1000):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + factor * d or tiny)
            c = 1 + factor / c or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)
    return math.exp(log_front) * fraction / a


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Mean of ``ours`` minus mean of ``theirs`` with Welch's 95 % interval (unequal variances, Welch 1947).

    ``n`` is the smaller number of values and ``sd`` the standard error of the difference. Without two values on each
    side there is no interval, and without one no mean.
    """
    one, two = summarize(ours), summarize(theirs)
    n = min(one.n, two.n)
    if one.mean is None or two.mean is None:
        return Summary(n)
    mean = one.mean - two.mean
    if one.sd is None or two.sd is None:
        return Summary(n, mean)
    error, degrees = _welch(one, two)
    half = t_quantile(degrees) * error if error else 0.0
    return Summary(n, mean, error, mean - half, mean + half)


def p_value(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Two-sided p of Welch's test that two means are equal; None without two values on each side."""
    one, two = summarize(ours), summarize(theirs)
    if one.mean is None or two.mean is None or one.sd is None or two.sd is None:
        return None
    error, degrees = _welch(one, two)
    if error == 0:
        return float(one.mean == two.mean)
    return t_tails((one.mean - two.mean) / error, degrees)


def _welch(one: Summary, two: Summary) -> tuple[float, float]:
    """Standard error of the difference of two means, and its degrees of freedom (Welch and Satterthwaite)."""
    parts = (one.sd or 0.0) ** 2 / one.n, (two.sd or 0.0) ** 2 / two.n
    spread = sum(parts)
    if spread == 0:
        return 0.0, 1.0
    shares = (parts[0] / spread) ** 2 / (one.n - 1) + (parts[1] / spread) ** 2 / (two.n - 1)
    # One in exact arithmetic at the least; a rounding must not say there is none.
    return math.sqrt(spread), max(1.0, 1 / shares)


def correlation(points: Sequence[tuple[float, float]]) -> Summary:
    """Pearson's r with Fisher's 95 % interval; ``n`` counts points.

    Without four points there is no interval; without two different values on each axis there is no r.
    """
    n = len(points)
    if n < 2 or any(len(set(axis)) < 2 for axis in zip(*points, strict=True)):
        return Summary(n)
    r = statistics.correlation(*zip(*points, strict=True))
    if n < 4 or abs(r) >= 1:
        return Summary(n, r)
    half = statistics.NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) / math.sqrt(n - 3)
    return Summary(n, r, None, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Summary:
    """Mean over the seeds that both have of ours minus theirs, with Student's 95 % interval of that mean.

    What a seed decides for both, such as initial weights or the order of data, drops out of the difference.
    """
    return summarize([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


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
    sd = statistics.stdev(values)
    half = t_quantile(n - 1) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def verdict(
    ours: Sequence[float] | Summary,
    published: Value,
    margin: float = DEFAULT_MARGIN,
    higher_is_better: bool = False,
) -> Verdict:
    """Judge a published value by our runs; ``margin`` is a fraction of that value, which may have its own.

    * reproduced: the 95 % interval of our mean lies within published ± margin.
    * better, worse: the interval lies entirely beyond the margin on the good or the bad side.
    * inconclusive: anything else with two runs or more; single run: n = 1; not run: n = 0.
    """
    summary = ours if isinstance(ours, Summary) else summarize(ours)
    if summary.n == 0:
        return Verdict.NOT_RUN
    if summary.low is None or summary.high is None:
        return Verdict.SINGLE_RUN
    width = published.width(margin)
    floor, ceiling = published.value - width, published.value + width
    if floor <= summary.low and summary.high <= ceiling:
        return Verdict.REPRODUCED
    if summary.high < floor:
        return Verdict.WORSE if higher_is_better else Verdict.BETTER
    if summary.low > ceiling:
        return Verdict.BETTER if higher_is_better else Verdict.WORSE
    return Verdict.INCONCLUSIVE
