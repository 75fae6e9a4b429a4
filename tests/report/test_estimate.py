"""How long a run may take: by its own kind first, by its likes otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from records_factory import make_record

from suite.records.record import Record
from suite.report.estimate import estimate_seconds
from suite.spec.run_spec import ComponentSpec, Labels, RunSpec

RECIPE = {"budget": {"epochs": 10, "steps": None}, "precision": {"recurrence": "tf32", "head": "tf32"}}


def spec(head: str = "mos", task: str = "new", **recipe: Any) -> RunSpec:
    return RunSpec(
        task=task,
        version=1,
        dataset=ComponentSpec("ptb"),
        encoder=ComponentSpec("awd-lstm"),
        head=ComponentSpec(head),
        recipe={**RECIPE, **recipe},
        stages=(ComponentSpec("train"),),
        seed=1,
        scope="full",
        labels=Labels("ptb", "awd-lstm", head),
    )


def record(of: RunSpec, seconds_per_epoch: float | None, total: float = 100.0, status: str = "finished") -> Record:
    made = make_record(
        task=of.task, status=status, costs={"seconds": {"total": total}, "seconds_per_epoch": seconds_per_epoch}
    )
    return made.model_copy(update={"spec": {**of.identity, "seed": 2}})


def test_a_run_of_another_seed_decides_before_any_that_is_only_alike() -> None:
    records = [record(spec(), 1.0, 70.0), record(spec(), 1.0, 90.0), record(spec(task="other"), 50.0)]
    assert estimate_seconds(spec(), records) == (80.0, False)
    longer = spec(budget={"epochs": 30, "steps": None})
    assert estimate_seconds(longer, records) == (240.0, False)


def test_the_likest_runs_of_other_tasks_give_a_rough_one() -> None:
    half = {"precision": {"recurrence": "float16", "head": "float16"}}
    softmax, other, same = (
        record(spec("softmax", "other"), 2.0),
        record(spec("mos", "other"), 9.0),
        record(spec("mos", "third", **half), 4.0, status="interrupted"),
    )
    assert estimate_seconds(spec(**half), [softmax]) == (20.0, True)
    assert estimate_seconds(spec(**half), [softmax, other]) == (90.0, True)
    assert estimate_seconds(spec(**half), [softmax, other, same]) == (40.0, True)


@pytest.mark.parametrize("recipe", [{}, {"budget": {"epochs": 10, "steps": 300}}])
def test_nothing_alike_is_no_estimate(recipe: dict[str, Any]) -> None:
    known = [record(spec("softmax", "other"), None)] if not recipe else [record(spec("softmax", "other"), 2.0)]
    assert estimate_seconds(spec(**recipe), known) is None
