"""Averaged SGD against torch's ASGD, the averaging triggers, schedules and parameter groups."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from suite.models.encoders.table import Table
from suite.models.heads.head import Softmax
from suite.models.language_model import LanguageModel
from suite.spec.recipe import NonMonotone, Recipe, Schedule
from suite.training.averages import RunningAverage, non_monotone_trigger
from suite.training.optimizers import build_optimizer, schedule_factor, set_learning_rate


@given(steps=st.integers(1, 12), weight_decay=st.sampled_from([0.0, 0.01]), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_averaged_sgd_equals_torch_asgd_without_decay_of_the_rate(steps: int, weight_decay: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(5, dtype=torch.float64, generator=generator)
    gradients = [torch.randn(5, dtype=torch.float64, generator=generator) for _ in range(steps)]
    theirs, ours = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    asgd = torch.optim.ASGD([theirs], lr=0.5, lambd=0.0, t0=0.0, weight_decay=weight_decay)
    sgd = torch.optim.SGD([ours], lr=0.5, weight_decay=weight_decay)
    average = RunningAverage([ours])
    for gradient in gradients:
        theirs.grad, ours.grad = gradient.clone(), gradient.clone()
        asgd.step()
        sgd.step()
        average.update()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    # torch keeps its weight 1 / (n - 1) in float32 whatever the parameters are.
    torch.testing.assert_close(average.values[0], asgd.state[theirs]["ax"], rtol=0, atol=1e-6)


def test_the_average_is_swapped_in_and_out_whole() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    average = RunningAverage([parameter])
    for value in (3.0, 5.0, 7.0):
        with torch.no_grad():
            parameter.fill_(value)
        average.update()
    with average.swapped_in():
        assert parameter.tolist() == [6.0, 6.0]  # the mean of the second and third iterate
    assert parameter.tolist() == [7.0, 7.0]
    assert average.values[0].tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("earlier", "latest", "fires"),
    [
        ([5.0, 4.0, 3.0], 9.0, False),  # not more than `patience` evaluations yet
        ([5.0, 4.0, 3.0, 3.1, 3.2, 3.3], 4.9, False),  # better than the best of five evaluations ago
        ([5.0, 4.0, 3.0, 3.1, 3.2, 3.3], 5.1, True),
        ([3.0, 4.0, 4.0, 4.0, 4.0, 4.0], 3.5, True),
    ],
)
def test_non_monotone_trigger_follows_the_official_rule(earlier: list[float], latest: float, fires: bool) -> None:
    rule = NonMonotone(trigger="non-monotone", patience=5)
    official = len(earlier) > 5 and latest > min(earlier[:-5])
    assert non_monotone_trigger(rule, earlier, latest) is fires is official


def test_one_cycle_rises_to_the_peak_and_falls_to_the_final_fraction() -> None:
    schedule = Schedule(name="one-cycle", warmup_steps=10, final_fraction=0.1)
    factors = [schedule_factor(schedule, step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(factors[10:]))


def test_constant_schedule_is_one() -> None:
    assert {schedule_factor(Schedule(), step, 5) for step in range(20)} == {1.0}


def small_model(**head: Any) -> LanguageModel:
    return LanguageModel(Table(7, 5, dimension=3), Softmax(3, 7, None, **head))


def test_a_pointwise_function_has_its_own_rate_and_every_parameter_is_in_one_group() -> None:
    model = small_model(pointwise={"name": "plif", "knots": 10})
    recipe = Recipe.model_validate({"optimizer": {"name": "sgd", "lr": 20}, "pointwise_lr": 0.02})
    optimizer = build_optimizer(model, recipe)
    assert [group["lr"] for group in optimizer.param_groups] == [20, 0.02]
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [10, 0.01]


def test_frozen_slopes_are_not_trained() -> None:
    model = small_model(pointwise={"name": "plif", "knots": 10, "frozen": True})
    optimizer = build_optimizer(model, Recipe(pointwise_lr=0.02))
    assert len(optimizer.param_groups) == 1
    assert math.prod(model.head.pointwise.raw_slopes.shape) == 10
    assert id(model.head.pointwise.raw_slopes) not in {id(p) for p in optimizer.param_groups[0]["params"]}
