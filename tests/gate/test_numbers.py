"""The gate's own arithmetic: intervals over seeds, ratios of pairs, counts of a step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import chain, repeat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suite.gate.counting import Ledger, count
from suite.gate.pairs import WARM_UP, median_ratio
from suite.gate.tolerance import NARROWEST, quality_interval, too_wide
from suite.gate.yardstick import Sizes, yardstick

PERPLEXITIES = st.lists(st.floats(1.0, 1e4), min_size=2, max_size=12)


@given(PERPLEXITIES)
def test_the_interval_is_the_prediction_interval_of_a_mean_and_never_narrower_than_the_floor(v: list[float]) -> None:
    low, high = quality_interval(v)
    mean, n = statistics.fmean(v), len(v)
    half = stats.t.ppf(0.975, n - 1) * statistics.stdev(v) * math.sqrt(2 / n)
    assert (low + high) / 2 == pytest.approx(mean)
    assert (high - low) / 2 == pytest.approx(max(half, NARROWEST * mean), rel=1e-6)


@given(PERPLEXITIES, st.sampled_from([0.97, 1.03]))
def test_an_interval_that_is_not_too_wide_sees_three_percent(values: list[float], factor: float) -> None:
    interval = quality_interval(values)
    moved = factor * statistics.fmean(values)
    assert too_wide(interval) or not interval.low <= moved <= interval.high


def test_seeds_of_the_same_source_pass_nineteen_times_in_twenty() -> None:
    rng = torch.Generator().manual_seed(0)
    draws = 100 + 2 * torch.randn(2000, 2, 5, generator=rng, dtype=torch.float64)
    inside = 0
    for learned, now in draws:
        low, high = quality_interval(learned.tolist())
        inside += low <= float(now.mean()) <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)


class Clock:
    """Moves only where work moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: object) -> Callable[[], None]:
        steps = iter(seconds)  # type: ignore[call-overload]

        def run() -> None:
            self.now += next(steps)

        return run


def test_the_ratio_is_the_median_of_pairs_and_the_first_do_not_count() -> None:
    clock = Clock()
    ours = clock.work(chain(repeat(1000.0, WARM_UP), [3.0, 3.0, 90.0, 3.0, 9.0]))
    theirs = clock.work(chain(repeat(1.0, WARM_UP), [2.0, 2.0, 2.0, 2.0, 6.0]))
    assert median_ratio(ours, theirs, pairs=5, clock=clock, interrupted=lambda: 0) == 1.5


def test_pairs_in_which_the_core_was_taken_away_do_not_count() -> None:
    clock = Clock()
    ours = clock.work(chain(repeat(1.0, WARM_UP), [3.0, 90.0, 3.0, 80.0, 3.0]))
    taken = iter([*repeat(0, WARM_UP), 0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    assert median_ratio(ours, clock.work(repeat(2.0)), pairs=3, clock=clock, interrupted=lambda: next(taken)) == 1.5


@given(st.lists(st.floats(0.5, 20.0), min_size=9, max_size=9))
def test_what_slows_both_of_a_pair_leaves_the_ratio_alone(load: list[float]) -> None:
    clock = Clock()
    loads = [1.0] * WARM_UP + load
    ratio = median_ratio(
        clock.work([1.4 * slow for slow in loads]),
        clock.work(list(loads)),
        pairs=len(load),
        clock=clock,
        interrupted=lambda: 0,
    )
    assert ratio == pytest.approx(1.4)


def test_operations_and_the_bytes_alive_at_once_are_counted() -> None:
    a = torch.ones(1000)
    with Ledger() as ledger:
        b = a + 1  # 4,000 bytes
        c = b * 2  # 8,000
        del b
        c.mul_(3)
        d = c[:10] + 1  # a view, and 4,040
        a.add_(1)  # here before: not counted
    assert (ledger.operations, ledger.peak_bytes) == (6, 8000)
    assert d.sum() == 130.0


def test_backward_and_update_are_counted_and_one_more_operation_is_one_more() -> None:
    def step(extra: bool) -> Callable[[], None]:
        weight = torch.ones(8, 8, requires_grad=True)
        optimizer = torch.optim.SGD([weight], lr=0.1)

        def run() -> None:
            loss = (torch.ones(4, 8) @ weight).sum()
            (loss * 1.0 if extra else loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return run

    plain, more = count(step(False)), count(step(True))
    assert plain.flops == more.flops == 2 * (2 * 4 * 8 * 8)  # forward, and the weight's gradient
    assert more.operations == plain.operations + 2  # the product, and its backward
    assert plain.peak_bytes >= 8 * 8 * 4, "the gradient stays"


def test_the_yardstick_trains_and_leaves_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    step = yardstick(Sizes(vocabulary=11, width=4, experts=3, size=2, length=5, batch=2))
    step()
    assert torch.equal(torch.get_rng_state(), state)
