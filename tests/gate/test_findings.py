"""Measurements beside baselines: the findings, the table and the line that says what moved, whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from suite.errors import InputError
from suite.gate.baseline import Baseline, Learned, learn
from suite.gate.findings import Verdict, compare
from suite.gate.measured import Cost, Measured
from suite.gate.table import render

LEARNED = Learned(
    commit="9d3051a6e0f2", changes=False, date="2026-11-24", reason="first", torch="2.13.0", machine="Linux x86_64"
)
COST = Cost(parameters=8000, head_parameters=128, operations=146, flops=4_718_592, time=1.1, memory=0.8)
CELL = Measured("markov lstm/mos-4", (1, 2, 3), {"train.test.ppl": [10.0, 10.02, 9.98]}, COST)


@pytest.fixture
def baseline() -> Baseline:
    return learn([CELL], LEARNED, [])


def gate(baseline: Baseline, *now: Measured, here: Learned = LEARNED, markdown: bool = False) -> str:
    return render(compare("heads", baseline, now, here), {"heads": baseline.learned[0]}, markdown)


def test_what_has_not_moved_holds(baseline: Baseline) -> None:
    assert gate(baseline, CELL) == (
        "task    cell               what                                   baseline        now    change  verdict\n"
        "------  -----------------  --------------------------------  -------------  ---------  --------  ---------\n"
        "heads   markov lstm/mos-4  train test ppl                    9.93 to 10.07      10.00     0.0 %  ok\n"
        "heads   markov lstm/mos-4  parameters                                8,000      8,000         0  ok\n"
        "heads   markov lstm/mos-4  parameters of the head                      128        128         0  ok\n"
        "heads   markov lstm/mos-4  operations a step                           146        146         0  ok\n"
        "heads   markov lstm/mos-4  floating-point operations a step      4,718,592  4,718,592         0  ok\n"
        "heads   markov lstm/mos-4  step time / yardstick              at most 1.38       1.10     0.0 %  ok\n"
        "heads   markov lstm/mos-4  step memory / yardstick            at most 0.88       0.80     0.0 %  ok\n"
        "\n"
        "The gate holds: 7 numbers; heads since 9d3051a6e (2026-11-24).\n"
    )


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (
            replace(CELL, quality={"train.test.ppl": [10.3, 10.3206, 10.2794]}),
            "train test ppl +3.0 % (10.30, allowed 9.93 to 10.07)",
        ),
        (
            replace(CELL, quality={"train.test.ppl": [9.7, 9.7, 9.7]}),
            "train test ppl -3.0 % (9.70, allowed 9.93 to 10.07)",
        ),
        (replace(CELL, cost=replace(COST, parameters=8001)), "parameters +1 (8,001, allowed 8,000)"),
        (replace(CELL, cost=replace(COST, operations=145)), "operations a step -1 (145, allowed 146)"),
        (
            replace(CELL, cost=replace(COST, time=1.54)),
            "step time / yardstick +40.0 % (1.54, allowed at most 1.38)",
        ),
        (
            replace(CELL, cost=replace(COST, memory=1.0)),
            "step memory / yardstick +25.0 % (1.00, allowed at most 0.88)",
        ),
        (
            replace(CELL, quality={}, failure="seed 2 diverged: the training loss is not finite at step 3 (epoch 1)"),
            "the run (seed 2 diverged: the training loss is not finite at step 3 (epoch 1), allowed finished)",
        ),
        (replace(CELL, quality={}), "train test ppl (is not measured, allowed 9.93 to 10.07)"),
    ],
)
def test_the_last_line_says_what_moved_by_how_much_since_when(baseline: Baseline, now: Measured, said: str) -> None:
    *_, hint, last = (line for line in gate(baseline, now).splitlines() if line)
    assert hint == "If the change is meant: `suite check heads --update --reason TEXT`, committed with it."
    assert last == (f"The gate does not hold since 9d3051a6e (2026-11-24): heads markov lstm/mos-4: {said}")


def test_a_cell_that_came_or_went_moves_the_gate(baseline: Baseline) -> None:
    last = gate(baseline, replace(CELL, cell="markov lstm/moc-4")).splitlines()[-1]
    assert last == (
        "The gate does not hold since 9d3051a6e (2026-11-24): heads markov lstm/moc-4: the cell (is new, allowed "
        "none), heads markov lstm/mos-4: the cell (is gone, allowed one)"
    )


def test_operations_of_another_torch_are_not_compared_and_the_table_says_so(baseline: Baseline) -> None:
    here = LEARNED.model_copy(update={"torch": "2.14.0"})
    now = replace(CELL, cost=replace(COST, operations=99))
    found = compare("heads", baseline, [now], here)
    assert [f.what for f in found if f.verdict is Verdict.SKIPPED] == [
        "operations a step",
        "floating-point operations a step",
    ]
    assert gate(baseline, now, here=here).splitlines()[-3:] == [
        "heads: operations were counted under torch 2.13.0 on Linux x86_64, which is not what runs here, and are not "
        "compared.",
        "",
        "The gate holds: 7 numbers; heads since 9d3051a6e (2026-11-24).",
    ]


def test_markdown_is_a_table_whose_moved_rows_stand_out(baseline: Baseline) -> None:
    *rows, _, hint, _, last = gate(baseline, replace(CELL, cell="a|b <c>"), markdown=True).splitlines()
    assert rows == [
        "| task      | cell                  | what         |   baseline |         now |   change | verdict   |",
        "|:----------|:----------------------|:-------------|-----------:|------------:|---------:|:----------|",
        "| **heads** | **a\\|b &lt;c>**       | **the cell** |   **none** |  **is new** |    **-** | **MOVED** |",
        "| **heads** | **markov lstm/mos-4** | **the cell** |    **one** | **is gone** |    **-** | **MOVED** |",
    ]
    assert hint == "If the change is meant: `suite check heads --update --reason TEXT`, committed with it."
    assert last.startswith("The gate does not hold since 9d3051a6e (2026-11-24): heads a\\|b &lt;c>: the cell (is new")


def test_nothing_is_learned_from_what_would_let_three_percent_pass_or_did_not_finish() -> None:
    wide = replace(CELL, quality={"train.test.ppl": [10.0, 10.2, 9.8]})
    failed = replace(CELL, cell="markov lstm/plif", failure="seed 1 failed: no")
    alone = replace(CELL, cell="markov lstm/softmax", seeds=(1,), quality={"train.test.ppl": [10.0]})
    with pytest.raises(InputError) as error:
        learn([wide, failed, alone], LEARNED, [])
    assert str(error.value).splitlines() == [
        "markov lstm/mos-4: train.test.ppl may lie from 9.297 to 10.7, so wide that a move of 3 % would pass; train it "
        "longer, or give it more seeds",
        "markov lstm/plif: nothing to learn: seed 1 failed: no",
        "markov lstm/softmax: an interval needs two seeds; give the task more",
    ]
