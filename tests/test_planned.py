"""The table of ``suite plan``: a line for the seeds of a cell, and what all of it may take."""

from __future__ import annotations

from suite.report.estimate import Estimate
from suite.spec.run_spec import ComponentSpec, Labels, RunSpec
from suite.verbs.planned import Line, planned_text


def spec(head: str, seed: int) -> RunSpec:
    return RunSpec(
        task="mine",
        version=1,
        dataset=ComponentSpec("ptb"),
        encoder=ComponentSpec("lstm"),
        head=ComponentSpec(head),
        recipe={},
        stages=(ComponentSpec("train"),),
        seed=seed,
        scope="full",
        labels=Labels("ptb", "lstm", head),
    )


def line(head: str, *runs: tuple[int, str, Estimate | None]) -> Line:
    made = Line(spec(head, 0))
    for seed, status, estimate in runs:
        made.add(spec(head, seed), status, estimate)
    return made


def test_seeds_are_folded_and_what_is_left_of_them_is_summed() -> None:
    one = spec("mos", 28).run_key[:12]
    lines = [
        line("softmax", *((seed, "done", None) for seed in (3, 1, 2))),
        line("gss", (1, "done", None), (2, "new", Estimate(30.0)), (28, "interrupted", Estimate(3600.0, rough=True))),
        line("mos", (28, "new", Estimate(60.0, at_most=True))),
        line("own", (1, "new", None), (2, "new", Estimate(10.0))),
    ]
    assert planned_text(lines) == (
        "task    dataset    method           seed  scope    status                          estimate  run key\n"
        "------  ---------  ------------  -------  -------  ----------------------------  ----------  ------------\n"
        "mine    ptb        lstm/softmax      1-3  full     done                                      3 runs\n"
        "mine    ptb        lstm/gss      1-2, 28  full     1 done, 1 new, 1 interrupted      ~1h00m  3 runs\n"
        f"mine    ptb        lstm/mos           28  full     new                               ≤1m00s  {one}\n"
        "mine    ptb        lstm/own          1-2  full     new                                    ?  2 runs\n"
        "\n"
        "9 cells, 4 done, 5 to run: about 1h00m for 3, at most 1m00s for 1, 1 with no run to go by\n"
        "~ by a run of other arithmetic or function, a packed one or a single epoch\n"
        "≤ at most"
    )


def test_nothing_is_said_of_what_is_not_there() -> None:
    done = planned_text([line("mos", (1, "done", None), (2, "done", None))])
    assert done.splitlines()[-1] == "2 cells, 2 done, 0 to run"
    new = planned_text([line("mos", (1, "new", Estimate(61.0)))])
    assert new.splitlines()[-1] == "1 cell, 0 done, 1 to run: about 1m01s for 1"
