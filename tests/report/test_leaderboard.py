"""What may fill a cell and what may not; the golden board: ``python tests/report/test_leaderboard.py --update``."""

from __future__ import annotations

import csv
import io
import random
import subprocess
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":  # run as a script to update the golden file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from records_factory import make_record

from suite.records.published import Paper, Published, Value
from suite.records.record import Record
from suite.report.columns import short_columns
from suite.report.compare import Verdict
from suite.report.files import csv_text, rows
from suite.report.leaderboard import Leaderboard, build, merge_tables
from suite.report.rows import FLOOR, Row
from suite.report.table import columns, heading, markdown, terminal
from suite.report.tasks import TaskInfo
from suite.spec.task import Deviation

GOLDEN = Path(__file__).with_name("golden_leaderboard.md")
YANG = Paper("yang2018", "Breaking", ("Zhilin Yang", "Zihang Dai", "Ruslan Salakhutdinov"), "ICLR", 2018)
LATER = Paper("later2020", "Later", ("Ann Later",), "V", 2020)


def number(head: str = "mos-15", test: float | None = 56.0, **fields: object) -> Published:
    values = {"valid.ppl": Value(58.0), **({} if test is None else {"test.ppl": Value(test)})}
    base: dict[str, object] = {
        "paper": YANG,
        "table": "1",
        "dataset": "ptb",
        "encoder": "awd-lstm",
        "head": head,
        "protocol": "nt-asgd",
        "stage": "train",
        "values": values,
        "source": "table 1",
        "parameters": 22e6,
    }
    return Published(**{**base, **fields})  # type: ignore[arg-type]


def seeds(*tests: float, **fields: object) -> list[Record]:
    return [make_record(seed=seed, test=test, **fields) for seed, test in enumerate(tests, 1)]  # type: ignore[arg-type]


def only_row(board: Leaderboard) -> Row:
    ((row,),) = [section.rows for section in board.sections]
    return row


def test_a_run_of_another_task_answers_no_number_and_stands_on_its_own() -> None:
    theirs = number(tasks=("awd-lstm-*",))
    run = make_record(task="mos-ptb")
    ((published, own),) = [section.rows for section in build([run], [theirs]).sections]
    assert (published.verdict, published.cell, own.published) == (Verdict.NOT_RUN, None, None)
    assert own.cell is not None
    (answered,) = build([make_record(task="awd-lstm-ptb")], [theirs]).sections[0].rows
    assert (answered.verdict, answered.published) == (Verdict.SINGLE_RUN, theirs)


def test_a_partial_or_short_run_of_another_task_answers_no_number() -> None:
    theirs = number(tasks=("awd-lstm-*",))
    for task, verdict in (("mos-ptb", Verdict.NOT_RUN), ("awd-lstm-ptb", Verdict.PARTIAL)):
        stopped = make_record(task=task, status="interrupted")
        short = make_record(task=task, scope="short")
        assert build([stopped], [theirs]).sections[0].rows[0].verdict is verdict
        section = build([short], [theirs]).sections[0]
        assert section.rows[0].verdict is verdict
        assert section.short[0].published is (theirs if verdict is Verdict.PARTIAL else None)


def test_tables_that_other_tasks_answer_stay_apart() -> None:
    one, other = number(tasks=("a",)), number(table="2", tasks=("b",))
    assert merge_tables([one, other]) == [one, other]
    assert [merged.table for merged in merge_tables([number(), number(table="2")])] == ["1, 2"]


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ([], Verdict.NOT_RUN),
        ([56.0], Verdict.SINGLE_RUN),
        ([56.0, 56.1, 55.9], Verdict.REPRODUCED),
        ([50.0, 50.1, 49.9], Verdict.BETTER),
        ([60.0, 60.1, 59.9], Verdict.WORSE),
        ([50.0, 62.0], Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts_from_records(tests: list[float], expected: Verdict) -> None:
    row = only_row(build(seeds(*tests), [number()], show="all"))
    assert row.verdict is expected
    assert (row.ours or {}).get("test", None) is None or row.ours["test"].n == len(tests)


@pytest.mark.parametrize("status", ["failed", "diverged", "interrupted"])
def test_what_did_not_finish_fills_no_cell_even_with_numbers(status: str) -> None:
    bad = make_record(seed=3, status=status, metrics={"train": {"test": {"ppl": 1.0}}}, message="step 12: out of luck")
    board = build([*seeds(56.0, 56.1), bad], [number()])
    row = only_row(board)
    assert row.ours is not None
    assert row.ours["test"].n == 2
    assert row.notes == (f"1 {status}",)
    assert [record.run_key for record in board.unfinished] == [bad.run_key]
    said = "was interrupted" if status == "interrupted" else status
    assert f"mos-ptb ptb awd-lstm/mos-15 seed 3 {said}: step 12: out of luck" in terminal(board)


@pytest.mark.parametrize("scope", ["smoke", "short"])
def test_smoke_and_short_runs_stand_apart(scope: str) -> None:
    short = make_record(scope=scope, test=200.0, valid=210.0, recipe={"budget": {"epochs": 2, "steps": 500}})  # type: ignore[arg-type]
    board = build([short], [number()])
    row = only_row(board)
    assert (row.verdict, row.cell) == (Verdict.PARTIAL if scope == "short" else Verdict.NOT_RUN, None)
    (shown,) = board.sections[0].short
    assert shown.values == {"valid": 210.0, "test": 200.0}
    assert shown.published == number()
    text = markdown(board)
    assert "**Smoke and short runs (not comparable)**" in text
    assert "2 epochs, 500 steps" in text
    assert [entry["kind"] for entry in rows(board)] == ["published", scope]


def test_runs_for_the_clock_show_no_perplexity_and_stand_by_their_time() -> None:
    records = [
        make_record(head=head, protocol="cost", test=test, costs={"seconds_per_epoch": took, "joules_per_epoch": drew})
        for head, test, took, drew in (("mos-15", 150.0, 3.4, 1234.5), ("softmax", 200.0, 2.2, None))
    ]
    (section,) = build(records, []).sections
    assert heading(section) == "ptb · cost · train (for the clock)"
    shown = {column.title: column.cells for column in columns(section)}
    assert shown["method"] == ("awd-lstm/softmax", "awd-lstm/mos-15")
    assert shown["s/epoch"] == ("2.20", "3.40")
    assert shown["J/epoch"] == ("-", "1,230")
    assert not [title for title in shown if title.startswith("ours")]


def test_short_runs_say_what_an_epoch_drew_where_one_was_counted() -> None:
    costs = {"seconds_per_epoch": 9.7, "joules_per_epoch": 6623.0}
    counted, older = (
        make_record(head=head, scope="short", test=164.0, costs=drew)
        for head, drew in (("mos-15", costs), ("softmax", costs | {"joules_per_epoch": None}))
    )
    (both,) = build([counted, older], [number()]).sections
    assert {column.title: column.cells for column in short_columns(both)}["J/epoch"] == ("6,620", "-")
    (one,) = build([older], [number()]).sections
    assert "J/epoch" not in {column.title for column in short_columns(one)}


def test_retired_versions_are_listed_and_not_counted() -> None:
    old, new = make_record(version=1, test=10.0), make_record(version=2, test=56.0)
    board = build([old, new], [number()], tasks={"mos-ptb": TaskInfo(2)})
    row = only_row(board)
    assert row.ours is not None
    assert (row.ours["test"].n, row.ours["test"].mean) == (1, 56.0)
    assert board.retired == (old,)
    assert "mos-ptb ptb awd-lstm/mos-15 seed 1: version 1 of the task" in terminal(board)
    # A task that is not named is taken as it is.
    assert build([old], [number()], tasks={"other": TaskInfo(9)}).retired == ()


def test_a_run_without_a_test_number_is_no_run_on_test() -> None:
    row = only_row(build([make_record(test=None)], [number()]))
    assert row.ours is not None
    assert (row.verdict, row.ours["test"].n, row.ours["valid"].n) == (Verdict.NOT_RUN, 0, 1)


def test_two_specs_under_one_label_are_two_rows_and_say_how_they_differ() -> None:
    fast = {"optimizer": {"name": "sgd", "lr": 30.0}}
    records = [*seeds(56.0, 56.1, 55.9), *seeds(60.0, 60.1, 59.9, recipe=fast)]
    first, second = build(records, [number()]).sections[0].rows
    assert first.ours is not None
    assert second.ours is not None
    assert {first.notes, second.notes} == {("recipe.optimizer.lr=20.0",), ("recipe.optimizer.lr=30.0",)}
    assert {first.ours["test"].mean, second.ours["test"].mean} == {56.0, 60.0}
    assert {first.ours["test"].n, second.ours["test"].n} == {3}
    assert {first.verdict, second.verdict} == {Verdict.REPRODUCED, Verdict.WORSE}


RANK = {"rank": {"test": {"rank": 9981.0}}}


def scored(**tests: float) -> dict[str, dict[str, dict[str, float]]]:
    return {name: {"test": {"ppl": test}} for name, test in tests.items()}


def test_a_stage_that_was_run_again_to_go_on_from_is_one_experiment() -> None:
    """What other tasks do after a stage does not part its runs, and a seed that ran twice is one seed."""
    records = [
        make_record(task="mos-ptb", stages=("train", "rank"), metrics={**scored(train=56.0), **RANK}),
        make_record(task="further", stages=("train", "finetune"), metrics=scored(train=56.5, finetune=54.0)),
        make_record(task="further", stages=("train", "finetune"), metrics=scored(train=57.0, finetune=55.0), seed=2),
    ]
    theirs = number(tasks=("mos-ptb",))
    train, finetune = (section.rows for section in build(records, [theirs]).sections)
    ((row,), (further,)) = train, finetune
    assert row.ours is not None
    assert row.secondary is not None
    assert further.ours is not None
    assert row.published is theirs, "one of its runs is of a task that answers"
    assert (row.ours["test"].mean, row.ours["test"].n, row.notes) == ((56.25 + 57.0) / 2, 2, ())
    assert row.secondary["rank"].mean == 9981
    assert (further.ours["test"].mean, further.ours["test"].n) == (54.5, 2)
    ((once,),) = (section.rows for section in build(records[:1] + records[1:2], [theirs]).sections[:1])
    assert once.verdict is Verdict.SINGLE_RUN, "two runs of one seed are no two seeds"


def test_what_came_before_a_stage_or_was_measured_otherwise_parts_its_runs() -> None:
    way = ("train", "finetune", "dynamic-evaluation")
    after = [
        make_record(task="a", stages=way, metrics=scored(train=56.0, finetune=54.0, **{"dynamic-evaluation": 48.0})),
        make_record(task="b", stages=way[::2], metrics=scored(train=56.0, **{"dynamic-evaluation": 49.0})),
    ]
    train, _, dynamic = (section.rows for section in build(after, []).sections)
    assert [row.notes for row in train] == [()]
    assert [(row.notes, row.ours["test"].mean) for row in dynamic if row.ours] == [
        (("stages=train, finetune, dynamic-evaluation",), 48.0),
        (("stages=train, dynamic-evaluation",), 49.0),
    ]
    measured = [
        make_record(task="a", stages=("train", "rank"), metrics={**scored(train=56.0), **RANK}),
        make_record(task="b", stages=("train", "modes"), metrics={**scored(train=57.0), "modes": RANK["rank"]}),
        make_record(task="c", stages=("train",), metrics=scored(train=58.0)),
    ]
    (rows,) = (section.rows for section in build(measured, []).sections)
    assert [row.ours["test"].mean for row in rows if row.ours] == [56.0, 57.0, 58.0]


def test_many_differences_are_cut_short() -> None:
    recipe = {"batch_size": 1, "bptt": 2, "clip": 0.5, "activation_regularization": 2.0, "temporal_regularization": 1.0}
    records = [make_record(), make_record(recipe=recipe)]
    notes = {row.notes for row in build(records, []).sections[0].rows}
    assert (
        "recipe.activation_regularization=2.0",
        "recipe.batch_size=1",
        "recipe.bptt=2",
        "and 2 more",
    ) in notes


def test_packed_runs_give_quality_and_no_costs() -> None:
    packed = make_record(seed=2, test=56.2, costs={"packed": True, "seconds_per_epoch": 1.0})
    alone = make_record(seed=1, test=56.0)
    row = only_row(build([packed, alone], [number()]))
    assert row.ours is not None
    assert row.costs is not None
    assert (row.ours["test"].n, row.costs.seconds_per_epoch) == (2, 40.0)
    only_packed = only_row(build([packed], [number()])).costs
    assert only_packed is not None
    assert (only_packed.seconds_per_epoch, only_packed.peak_mib, only_packed.device) == (None, None, "NVIDIA H200")


def test_costs_are_of_runs_that_had_the_machine_alone() -> None:
    shared = make_record(seed=1, costs={"exclusive": False, "seconds_per_epoch": 1.0})
    unknown = make_record(seed=2, costs={"exclusive": None, "seconds_per_epoch": 2.0})
    alone = [make_record(seed=seed, costs={"seconds_per_epoch": float(seed)}) for seed in (30, 40, 90)]
    both = only_row(build([shared, unknown, *alone], [number()])).costs
    assert both is not None
    assert (both.seconds_per_epoch, both.exclusive) == (40.0, True)
    unsure = build([shared, unknown], [number()])
    assert "~2.00" in markdown(unsure)
    assert only_row(build([shared], [number()])).costs.seconds_per_epoch is None  # type: ignore[union-attr]


def test_costs_of_two_devices_are_never_mixed() -> None:
    slow = [make_record(seed=seed, device="Slow", costs={"seconds_per_epoch": 100.0}) for seed in (1, 2)]
    fast = [make_record(seed=3, device="Fast", costs={"seconds_per_epoch": 1.0})]
    found = only_row(build([*slow, *fast], [number()])).costs
    assert found is not None
    assert (found.device, found.other_devices, found.seconds_per_epoch) == ("Slow", 1, 100.0)


def test_a_run_known_to_be_alone_speaks_before_runs_that_could_not_tell() -> None:
    unsure = [make_record(seed=seed, device="Other", costs={"exclusive": None}) for seed in (1, 2)]
    found = only_row(build([*unsure, make_record(seed=3, costs={"seconds_per_epoch": 7.0})], [number()])).costs
    assert found is not None
    assert (found.device, found.seconds_per_epoch, found.exclusive) == ("NVIDIA H200", 7.0, True)


@pytest.mark.parametrize(
    ("costs", "shown"),
    [
        ({}, (9876.0, "NVML, process")),
        ({"gpu_peak_source": "device-minus-baseline"}, (9876.0, "NVML, device")),
        ({"gpu_peak_mib": None, "gpu_peak_source": "none"}, (8765.0, "allocator")),
        (
            {"gpu_peak_mib": None, "allocator_peak_mib": None, "cpu_peak_mib": 512.0, "cpu_peak_source": "run"},
            (512.0, "CPU"),
        ),
    ],
)
def test_a_peak_says_what_it_is_of(costs: dict[str, object], shown: tuple[float, str]) -> None:
    found = only_row(build([make_record(costs=costs)], [number()])).costs
    assert found is not None
    assert (found.peak_mib, found.peak_source) == shown


def test_published_in_two_tables_is_one_row_and_a_contradiction_two() -> None:
    again = number(table="5", values={"test.ppl": Value(56.0), "test.rank": Value(9981)})
    other = number(table="4", values={"test.ppl": Value(56.5)})
    first, second = build([], [number(), again, other], show="all").sections[0].rows
    assert first.published is not None
    assert second.published is not None
    assert first.published.citation == "Yang et al. 2018, tables 1, 5"
    assert first.published.values["test.rank"] == Value(9981)
    assert second.published.citation == "Yang et al. 2018, table 4"


def test_a_rerun_by_the_authors_is_a_row_of_its_own() -> None:
    rerun = number(table="README", framework="PyTorch 0.4.1")
    found = [row.published.table for row in build([], [number(), rerun], show="all").sections[0].rows if row.published]
    assert found == ["1", "README"]


def test_compared_on_valid_where_the_source_prints_no_test() -> None:
    board = build(seeds(56.0, 56.1), [number(test=None), number("mos-3")])
    row = board.sections[0].rows[0]
    assert (row.split, row.verdict) == ("valid", Verdict.REPRODUCED)
    assert "(valid)" in terminal(board, width=500)


def test_the_floor_comes_first_and_differences_are_taken_from_it() -> None:
    facts = {
        "valid_floor_ppl": 20.5,
        "test_floor_ppl": 20.0,
        "test_floor_entropy_ppl": 19.9,
        "log_prob_rank": 31.0,
    }
    metrics = {"train": {"valid": {"ppl": 22.0}, "test": {"ppl": 21.5}}, "rank": {"test": {"rank": 30.0}}}
    records = [
        make_record(
            dataset="hidden-markov", protocol="demo", head=head, facts=facts, metrics=metrics, stages=("train", "rank")
        )
        for head in ("softmax", "mos-8")
    ]
    (section,) = build(records, []).sections
    floor, *ours = section.rows
    assert floor.method == FLOOR == "true floor (the source itself)"
    assert floor.floor is not None
    assert (floor.floor.values, floor.floor.entropy, floor.floor.rank) == (
        {"valid": 20.5, "test": 20.0},
        19.9,
        31.0,
    )
    assert [row.delta for row in ours] == [1.5, 1.5]
    table = {column.title: column.cells for column in columns(section)}
    assert table["above floor"] == ("-", "+1.50", "+1.50")
    assert table["rank"] == ("31", "30 (1)", "30 (1)")
    assert section.key.stage == "train"


def test_categorical_experiments_are_scored_by_divergence() -> None:
    metrics = {"train": {"train": {"kl": 0.25, "mode_match": 50.0}}}
    board = build([make_record(dataset="categorical", protocol="demo", metrics=metrics)], [])
    (section,) = board.sections
    assert (section.metric, section.splits) == ("kl", ("train",))
    table = {column.title: column.cells for column in columns(section)}
    assert table["ours train"] == ("0.25 (1)",)
    assert table["mode match"] == ("50.0 % (1)",)


def test_each_stage_has_its_section() -> None:
    metrics = {"train": {"test": {"ppl": 56.0}}, "finetune": {"test": {"ppl": 54.0}}, "rank": {"test": {"rank": 9981}}}
    record = make_record(metrics=metrics, stages=("train", "finetune", "rank"))
    train, finetune = build([record], [number(), number(stage="finetune", test=54.0)]).sections
    assert (train.key.stage, finetune.key.stage) == ("train", "finetune")
    # The rank is that of the finetuned model.
    assert train.rows[0].secondary == {}
    assert finetune.rows[0].secondary is not None
    assert finetune.rows[0].secondary["rank"].mean == 9981


def test_what_is_shown() -> None:
    records = seeds(56.0)
    published = [number(), number(protocol="et-asgd-200"), number(dataset="wikitext-2")]
    keys = {
        show: [section.key[:2] for section in build(records, published, show=show).sections]
        for show in ("ours", "datasets", "all")
    }
    ptb = [("ptb", "et-asgd-200"), ("ptb", "nt-asgd")]
    assert keys == {"ours": ptb[1:], "datasets": ptb, "all": [*ptb, ("wikitext-2", "nt-asgd")]}
    assert [s.key.dataset for s in build(records, published, datasets=["wikitext-2"], show="all").sections] == [
        "wikitext-2"
    ]


def test_numbers_that_no_section_compares_are_still_printed() -> None:
    gain = number(values={"test.ppl_gain": Value(-0.4), "test.rank": Value(4640)}, reported_by="others")
    board = build([], [gain], show="all")
    assert board.sections == ()
    assert "test.ppl\\_gain -0.4; test.rank 4640" in markdown(board)
    assert "Yang et al. 2018, table 1\\*" in markdown(board)


def test_papers_that_were_not_read_are_named_with_those_who_report_of_them() -> None:
    kanai = Paper("kanai2018", "Sigsoftmax", ("Sekitoshi Kanai", "Yasuhiro Fujiwara", "Yuki Yamanaka"), "NeurIPS", 2018)
    ganea = Paper("ganea2019", "PLIF", ("Octavian-Eugen Ganea", "Sylvain Gelly", "Gary Bécigneul"), "ICML", 2019)
    numbers = [
        number(reported_by="others"),
        number(framework="PyTorch 0.4.1"),
        number("sigsoftmax", paper=kanai, reported_by="Parthiban et al. 2021, table 1"),
        number("plif", paper=ganea, reported_by="Parthiban et al. 2021, table 1"),
        number("gss", paper=LATER, dataset="wikitext-2", reported_by="a list"),
        number("gss", paper=LATER, dataset="wikitext-2", reported_by="a page"),
    ]
    line = "Own tables not read, only what others report of them: "
    both = "Kanai et al. 2018, Ganea et al. 2019 (by Parthiban et al. 2021, table 1)."
    board = build([], numbers, show="all")
    assert f"\n\n{line}{both[:-1]}; Later 2020 (by a list and a page).\n\n" in markdown(board)
    assert (
        " ".join(terminal(board).split("\n\n")[-1].split()) == f"{line}{both[:-1]}; Later 2020 (by a list and a page)."
    )
    # Only those that are shown; a paper that was read in part is no such.
    assert f"\n\n{line}{both}\n\n" in markdown(build(seeds(56.0), numbers))
    assert line not in markdown(build(seeds(56.0), numbers[:2]))


def test_an_empty_board() -> None:
    board = build([], [])
    assert terminal(board) == "No results yet.\n"
    assert csv_text(board) == ""


def test_a_narrow_terminal_keeps_what_matters() -> None:
    board = build(seeds(56.0, 56.1, 55.9), [number()])
    narrow = terminal(board, width=80).splitlines()
    table = narrow[2:5]
    assert max(map(len, table)) <= 80
    for title in ("method", "published test", "ours test", "verdict"):
        assert title in table[0]
    assert "float32 · NVIDIA H200" in narrow[0]
    assert "record" in terminal(board, width=300).splitlines()[2]


def test_foreign_text_cannot_break_a_table_or_a_terminal() -> None:
    bad = make_record(head="a|b", status="failed", message="x\n<!-- leaderboard:end -->\x1b[31m`y`")
    board = build([bad, make_record(head="a|b", seed=2)], [])
    text = markdown(board)
    assert "<!--" not in text
    assert "\x1b" not in text + terminal(board)
    assert "awd-lstm/a\\|b" in text


CURVE = [{"epoch": 21.0, "valid_ppl": 80.0}, {"epoch": 22.0, "valid_ppl": 78.33}]
TASKS = {
    "old": TaskInfo(2),
    "mos-ptb": TaskInfo(
        1,
        {("ptb", "awd-lstm/moc-15"): 1000},
        (
            Deviation(
                what="TF32 products.", why="The GPU has no other fast ones.", effect="None seen.", touches="mos-*"
            ),
            Deviation(what="300 epochs.", why="Time is scarce.", effect="At most +0.1 test perplexity expected."),
            Deviation(what="Another lamb.", why="It is not told.", effect="None here.", stages=["dynamic-evaluation"]),
        ),
    ),
}


def sample() -> tuple[list[Record], list[Published]]:
    """A board with a bit of everything, made up."""
    facts = {"valid_floor_ppl": 20.5, "test_floor_ppl": 20.0, "test_floor_entropy_ppl": 19.9, "log_prob_rank": 31.0}
    records = [
        *seeds(55.9, 56.0, 56.1),
        *seeds(58.9, 59.3, head="softmax", parameters=24_221_600),
        make_record(head="plif", test=57.0),
        make_record(head="mos-15", seed=4, status="diverged", message="the loss is nan at step 120 of epoch 3"),
        make_record(head="softmax", seed=9, test=210.0, valid=220.0, scope="smoke", device="a processor"),
        make_record(head="gss", seed=5, status="interrupted", message="stopped by the user"),
        make_record(task="old", version=1, head="softmax", test=70.0),
        make_record(head="moc-15", seed=6, scope="short", recipe={"budget": {"epochs": 22}}, curves=CURVE),
    ]
    for head, tests in (("softmax", (24.0, 24.2)), ("mos-8", (21.0, 21.1))):
        records += seeds(
            *tests,
            dataset="hidden-markov",
            protocol="demo",
            encoder="lstm",
            head=head,
            facts=facts,
            parameters=30_000,
            device="a processor",
            costs={"exclusive": None, "gpu_peak_mib": None, "gpu_peak_source": "none", "allocator_peak_mib": None,
                   "cpu_peak_mib": 612.5, "cpu_peak_source": "run", "seconds_per_epoch": 1.2345},
        )  # fmt: skip
    published = [
        number(),
        number("moc-15", 57.55, table="5"),
        number("mos", table="4", dataset="switchboard", encoder="seq2seq", unavailable="a corpus under licence"),
        number(table="README", framework="PyTorch 0.4.1", test=56.4),
        number("softmax", 58.8, table="as quoted", reported_by="others", parameters=24e6),
        number("sigsoftmax", paper=LATER, values={"test.ppl": Value(58.4, 0.15, 11)}),
        number("sigsoftmax", paper=LATER, table="2", protocol="unstated", values={"test.rank": Value(4640)}),
    ]
    return records, published


def golden_text() -> str:
    records, published = sample()
    return markdown(build(records, published, tasks=TASKS, show="all"))


def test_golden_board() -> None:
    assert golden_text() == GOLDEN.read_text(encoding="utf-8"), "run: python tests/report/test_leaderboard.py --update"


def test_the_order_of_files_does_not_show() -> None:
    records, published = sample()
    random.Random(0).shuffle(records)
    assert markdown(build(records, published, tasks=TASKS, show="all")) == golden_text()


def test_infinity_never_appears() -> None:
    records, published = sample()
    board = build(records, published, show="all")
    for text in (terminal(board, 200), markdown(board), csv_text(board)):
        assert not {"inf", "nan", "Infinity", "NaN"} & set(
            text.replace("|", " ").replace(",", " ").replace("the loss is nan", "").split()
        )


def test_csv_has_a_row_for_each_and_full_precision() -> None:
    records, published = sample()
    board = build(records, published, show="all")
    table = list(csv.DictReader(io.StringIO(csv_text(board))))
    assert len(table) == sum(len(section.rows) + len(section.short) for section in board.sections)
    mos = next(row for row in table if row["method"] == "awd-lstm/mos-15" and row["table"] == "1")
    assert float(mos["ours_test"]) == pytest.approx((55.9 + 56.0 + 56.1) / 3, abs=1e-13)
    assert (mos["verdict"], mos["n"], mos["seeds"]) == ("reproduced", "3", "1 2 3")
    assert len(mos["records"].split()) == 3


def test_the_official_variant_reaches_the_csv() -> None:
    metrics = {"train": {"test": {"ppl": 56.0, "official_ppl": 55.9}}}
    (row,) = rows(build([make_record(metrics=metrics)], [number()]))
    assert (row["ours_test"], row["ours_official_test"]) == (56.0, 55.9)


def test_a_report_needs_neither_torch_nor_mlflow_nor_pandas() -> None:
    code = (
        "import sys, suite.report.table, suite.report.files, suite.report.show, suite.records.published as p\n"
        "p.load_published()\n"
        "print(sorted({'torch', 'mlflow', 'pandas', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        raise SystemExit("usage: python tests/report/test_leaderboard.py --update")
    GOLDEN.write_text(golden_text(), encoding="utf-8")
