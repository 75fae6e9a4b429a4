"""Several running averages in one run: when each starts, what is scored under which name, and what stays untouched."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tasks import TINY, Desk, one_record
from torch import nn

from suite.records.record import Record
from suite.spec.recipe import Recipe
from suite.training.averages import Averages

FROM_2 = {"trigger": "epoch", "epoch": 2}
TRIGGER = {"trigger": "non-monotone", "patience": 2}


def averages(parameter: nn.Parameter, main: dict[str, Any] | None, *tracked: int | str) -> Averages:
    recipe = Recipe.model_validate({"averaging": main, "track_averages": list(tracked)})
    return Averages([parameter], recipe)


def step(parameter: nn.Parameter, kept: Averages, value: float) -> None:
    with torch.no_grad():
        parameter.fill_(value)
    kept.update()


def test_each_average_begins_at_its_epoch_and_has_its_name() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    kept = averages(parameter, FROM_2, 1, 3, 2)
    assert kept.main == "2"
    assert kept.judged is None
    assert kept.several
    assert kept.begin_epoch(1) == ["1"]
    for value in (1.0, 2.0):
        step(parameter, kept, value)
    assert kept.begin_epoch(1) == [], "each starts once"
    assert kept.begin_epoch(2) == ["2"]
    assert kept.judged is kept.active["2"]
    for value in (3.0, 4.0, 8.0):
        step(parameter, kept, value)
    assert kept.begin_epoch(7) == ["3"], "also where its own epoch was not looked at"
    means = {name: average.values[0].tolist() for name, average in kept.active.items()}
    # torch's mean leaves the first iterate out; an average that has seen no step is the iterate.
    assert means == {"1": [17 / 4] * 2, "2": [6.0] * 2, "3": [8.0] * 2}


@pytest.mark.parametrize(
    ("main", "tracked", "needs", "several"),
    [
        (None, (), True, False),
        (FROM_2, (), True, False),
        (FROM_2, (2,), True, False),  # the same average twice is one
        (FROM_2, (4,), True, True),
        (TRIGGER, (), True, False),
        (TRIGGER, (3,), True, True),
        (None, ("non-monotone",), True, False),
    ],
)
def test_before_any_average_the_iterate_is_what_is_scored(
    main: dict[str, Any] | None, tracked: tuple[int | str, ...], needs: bool, several: bool
) -> None:
    kept = averages(nn.Parameter(torch.zeros(1)), main, *tracked)
    assert (kept.needs_iterate, kept.several) == (needs, several)


def test_the_iterate_is_needed_until_the_trigger_has_fired() -> None:
    kept = averages(nn.Parameter(torch.zeros(1)), FROM_2, "non-monotone")
    kept.begin_epoch(2)
    assert kept.needs_iterate, "the trigger beside a judged average still looks at the iterate"
    losses = [5.0, 4.0, 3.0, 4.5, 5.5, 5.0, 5.1]
    assert [kept.observe(loss) for loss in losses] == [[]] * 6 + [["nt"]]
    assert kept.observe(9.0) == []
    assert kept.active.keys() == {"2", "nt"}
    assert kept.main == "2"
    assert not kept.needs_iterate


def test_a_tracked_trigger_has_the_patience_of_the_rule_it_stands_beside() -> None:
    kept = averages(nn.Parameter(torch.zeros(1)), TRIGGER, "non-monotone", 1)
    assert [kept.observe(loss) for loss in [5.0, 4.0, 3.0, 6.0]] == [[], [], [], ["nt"]]
    assert kept.main == "nt"
    assert kept.judged is kept.active["nt"]


def test_a_state_goes_on_where_it_was_taken() -> None:
    one, other = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    kept, resumed = (averages(p, FROM_2, 1, "non-monotone") for p in (one, other))
    kept.begin_epoch(1)
    for value in (1.0, 5.0):
        step(one, kept, value)
    for loss in (5.0, 4.0, 3.0, 2.0, 2.5, 1.0):
        kept.observe(loss)
    kept.begin_epoch(2)
    step(one, kept, 7.0)
    resumed.load_state_dict(kept.state_dict())
    for parameter, each in ((one, kept), (other, resumed)):
        for value in (2.0, 9.0):
            step(parameter, each, value)
        assert each.observe(6.0) == ["nt"], "the history of losses is part of the state"
    for name, average in kept.active.items():
        assert resumed.active[name].updates == average.updates
        assert torch.equal(resumed.active[name].values[0], average.values[0])


def run(desk: Desk, options: str) -> Record:
    text = TINY.replace("epochs: 2", "epochs: 5").replace("  clip: 0.25\n", f"  clip: 0.25\n{options}")
    desk.write("tasks/tiny.yaml", text)
    results = Path(f"results-{len(list(desk.root.iterdir()))}")
    code, _, err = desk.run("tiny", "--only", "head=mos-2", "--seed", "1", "--results", str(results))
    assert (code, err) == (0, "")
    return one_record(results)


def without(values: dict[str, Any], *marks: str) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k != "seconds" and not any(mark in k for mark in marks)}


def test_tracking_adds_scores_under_their_names_and_changes_nothing_else(desk: Desk) -> None:
    plain = run(desk, "  averaging: {trigger: epoch, epoch: 3}\n")
    tracked = run(desk, "  averaging: {trigger: epoch, epoch: 3}\n  track_averages: [2, 4, non-monotone]\n")
    assert tracked.run_key != plain.run_key
    for split in ("valid", "test"):
        found = tracked.metrics["train"][split]
        assert without(found, "@", "_raw") == plain.metrics["train"][split]
        assert found["ppl_raw"] == pytest.approx(math.exp(found["nll_raw"]))
        names = {key.partition("@")[2] for key in found if "@" in key}
        # Five epochs are too few for the trigger.
        assert names == {"2", "3", "4"}
        for name in names:
            assert found[f"ppl@{name}"] == pytest.approx(math.exp(found[f"nll@{name}"]))
    assert [without(p, "@", "_raw") for p in tracked.curves] == [without(p) for p in plain.curves]
    extra = [{key for key in p if "ppl" in key and ("@" in key or "raw" in key)} for p in tracked.curves]
    raw = {"valid_ppl_raw"}
    assert extra == [
        set(),
        {"valid_ppl@2"},
        raw | {"valid_ppl@2"},
        raw | {"valid_ppl@2", "valid_ppl@4"},
        raw | {"valid_ppl@2", "valid_ppl@4"},
    ]
    last = tracked.curves[-1]
    scores = tracked.metrics["train"]["valid"]
    assert scores["ppl_raw"] == last["valid_ppl_raw"]
    assert scores["ppl@3"] == last["valid_ppl"]
    assert scores["ppl@4"] == last["valid_ppl@4"]


def test_the_trigger_is_tracked_beside_an_epoch(desk: Desk) -> None:
    # A rate so high that validation soon gets worse.
    options = "  averaging: {trigger: non-monotone, patience: 1}\n  track_averages: [2]\n"
    text = TINY.replace("lr: 5", "lr: 200").replace("epochs: 2", "epochs: 8").replace("  clip: 0.25\n", options)
    desk.write("tasks/tiny.yaml", text)
    code, _, err = desk.run("tiny", "--only", "head=mos-2", "--seed", "1")
    assert (code, err) == (0, "")
    record = one_record(desk.results)
    averaged = [point["averaged"] for point in record.curves]
    assert sorted(averaged) == averaged
    assert averaged[0] == 0
    assert averaged[-1] == 1
    for point in record.curves:
        assert ("valid_ppl_raw" in point) == bool(point["averaged"])
        assert ("valid_ppl@2" in point) == (point["epoch"] >= 2)
    assert {"ppl@nt", "ppl@2", "ppl_raw"} <= record.metrics["train"]["test"].keys()


def test_the_trigger_is_tracked_where_another_average_is_judged(desk: Desk) -> None:
    options = "  averaging: {trigger: epoch, epoch: 2}\n  track_averages: [non-monotone]\n"
    text = TINY.replace("lr: 5", "lr: 200").replace("epochs: 2", "epochs: 14").replace("  clip: 0.25\n", options)
    desk.write("tasks/tiny.yaml", text)
    code, _, err = desk.run("tiny", "--only", "head=mos-2", "--seed", "1")
    assert (code, err) == (0, "")
    record = one_record(desk.results)
    begun = [point["epoch"] for point in record.curves if "valid_ppl@nt" in point]
    assert begun == list(range(int(begun[0]), 15))
    assert begun[0] > 6, "patience of five evaluations"
    assert all("valid_ppl_raw" in point for point in record.curves[1:])
    scores = record.metrics["train"]["valid"]
    assert scores["ppl@nt"] == record.curves[-1]["valid_ppl@nt"]
