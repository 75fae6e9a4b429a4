from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suite.records.published import Value
from suite.report.compare import Summary, Verdict, difference, summarize, t_quantile, verdict

VALUES = st.lists(st.floats(1, 1000), min_size=2, max_size=12)


@given(VALUES)
def test_the_interval_is_students(values: list[float]) -> None:
    ours = summarize(values)
    assert ours.n == len(values)
    assert ours.mean is not None
    assert ours.sd is not None
    assert ours.low is not None
    assert ours.high is not None
    if ours.sd > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=ours.mean, scale=ours.sd / math.sqrt(len(values)))
        assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9 * max(1.0, ours.sd))
        # The identity behind the name: 95 % of a t-distribution lies within the half-width in standard errors.
        half = (ours.high - ours.mean) * math.sqrt(len(values)) / ours.sd
        assert stats.t.cdf(half, len(values) - 1) - stats.t.cdf(-half, len(values) - 1) == pytest.approx(0.95, abs=1e-6)


def test_five_seeds_by_hand() -> None:
    # t(4, 0.975) = 2.776445; mean 3, sd sqrt(2.5).
    ours = summarize([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (ours.n, ours.mean) == (5, 3.0)
    assert ours.sd == pytest.approx(1.5811388)
    assert (ours.low, ours.high) == pytest.approx((1.0367568, 4.9632432))


def test_spread_needs_two_values() -> None:
    assert summarize([]) == Summary(0)
    assert summarize([56.0]) == Summary(1, 56.0)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"^not finite: \["):
        summarize([56.0, bad])


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        ([], Verdict.NOT_RUN),
        ([100.0], Verdict.SINGLE_RUN),
        ([100.1, 99.9, 100.0], Verdict.REPRODUCED),
        ([99.0, 99.0], Verdict.REPRODUCED),  # the very edge of the margin belongs to it
        ([101.0, 101.0], Verdict.REPRODUCED),
        ([95.0, 95.1, 95.2], Verdict.BETTER),
        ([105.0, 105.1, 105.2], Verdict.WORSE),
        ([99.0, 98.9, 99.1], Verdict.INCONCLUSIVE),  # astride the edge
        ([90.0, 110.0], Verdict.INCONCLUSIVE),  # right on average, but says nothing
        ([95.0, 99.5], Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(ours: list[float], expected: Verdict) -> None:
    assert verdict(ours, Value(100.0)) is expected


def test_verdict_names_are_the_ones_tables_print() -> None:
    assert [str(item) for item in Verdict] == [
        "reproduced",
        "better",
        "worse",
        "different",
        "inconclusive",
        "single run",
        "not run",
        "partial",
        "data not available",
    ]


def test_a_number_may_carry_its_own_margin() -> None:
    ours = [105.0, 105.1, 105.2]
    assert verdict(ours, Value(100.0), margin=0.10) is Verdict.REPRODUCED
    assert verdict(ours, Value(100.0), margin=0.01) is Verdict.WORSE


def test_a_values_own_margin_goes_before_the_numbers() -> None:
    ours = [105.0, 105.1, 105.2]
    assert verdict(ours, Value(100.0, margin=0.10), margin=0.01) is Verdict.REPRODUCED
    assert verdict(ours, Value(100.0, margin=0.01), margin=0.10) is Verdict.WORSE


@given(VALUES, st.floats(1, 1000), st.floats(0.001, 0.2))
def test_turning_the_scale_round_swaps_better_and_worse(values: list[float], published: float, margin: float) -> None:
    low, high = (verdict(values, Value(published), margin, up) for up in (False, True))
    swapped = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    assert high is swapped.get(low, low)


@given(VALUES, st.floats(1, 1000))
def test_a_wider_margin_never_turns_a_reproduction_away(values: list[float], published: float) -> None:
    if verdict(values, Value(published), 0.01) is Verdict.REPRODUCED:
        assert verdict(values, Value(published), 0.02) is Verdict.REPRODUCED


@given(VALUES, VALUES)
def test_the_interval_of_a_difference_is_welchs(ours: list[float], theirs: list[float]) -> None:
    found = difference(ours, theirs)
    spread = min(summarize(ours).sd or 0.0, summarize(theirs).sd or 0.0)
    assert found.n == min(len(ours), len(theirs))
    if spread > 1e-6:
        expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-6)


@given(VALUES, VALUES)
def test_a_difference_turns_round_with_its_sides(ours: list[float], theirs: list[float]) -> None:
    there, back = difference(ours, theirs), difference(theirs, ours)
    assert there.mean == pytest.approx(-back.mean, abs=1e-9)  # type: ignore[operator]
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)  # type: ignore[operator]


def test_a_difference_without_spread_or_values() -> None:
    assert difference([], [1.0]) == Summary(0)
    assert difference([3.0], [1.0, 2.0]) == Summary(1, 1.5)
    assert difference([2.0, 2.0], [1.0, 1.0]) == Summary(2, 1.0, 0.0, 1.0, 1.0)


def test_t_quantiles_are_those_of_scipy() -> None:
    for degrees in [*range(1, 60), 100, 1000, 10**6, 1.0001, 1.5, 2.0001, 4.37, 9.99, 29.5, 30.5, 41.7]:
        assert t_quantile(degrees) == pytest.approx(float(stats.t.ppf(0.975, degrees)), abs=1e-7)
    with pytest.raises(ValueError, match="0 degrees of freedom; a spread needs at least two values"):
        t_quantile(0)
