"""The published numbers that our runs answer: each value with ours, and nothing that no run speaks of."""

from __future__ import annotations

from dataclasses import replace

from records_factory import make_record

from suite.records.published import Paper, Published, Value
from suite.report.answered import answered, answered_beside, answered_markdown
from suite.report.leaderboard import build

YANG = Paper("yang2018", "On", ("A B", "C D", "E F"), "ICLR", 2018)


def number(head: str, protocol: str = "nt-asgd", **values: float) -> Published:
    named = {name.replace("_", ".", 1): Value(value) for name, value in values.items()}
    return Published(YANG, "1", "ptb", "awd-lstm", head, protocol, "train", named, source="table 1", parameters=22e6)


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_every_value_that_a_full_run_answers_has_a_row_and_no_other() -> None:
    metrics = {
        "train": {"valid": {"ppl": 58.5}, "test": {"ppl": 56.36}},
        "rank": {"test": {"rank": 10000.0, "rank_press_float32": 9981.0}},
    }
    records = [
        make_record(metrics=metrics, stages=("train", "rank")),
        make_record(head="softmax", scope="short", test=99.0),
        make_record(head="gss", status="interrupted", message="stopped by the user"),
    ]
    published = [
        number("mos-15", valid_ppl=58.08, test_ppl=55.97, test_rank=9981.0, train_ppl=33.0),
        number("softmax", test_ppl=58.8),
        number("gss", test_ppl=57.6),
        number("plif", test_ppl=57.0),
    ]
    key = records[0].run_key[:8]
    head = ["ptb", "awd-lstm/mos-15", "train"]
    table = "B et al. 2018, table 1"
    board = build(records, published, show="all")
    assert rows(answered_markdown(answered(board))) == [
        [*head, "test perplexity", "55.97", "56.36 (1)", "+0.7 %", "single run", table, f"[{key}]"],
    ]
    assert rows(answered_markdown(answered_beside(board))) == [
        [*head, "test rank (Press, all float32)", "9,981", "9,981 (1)", "+0.0 %", "single run", table, f"[{key}]"],
    ]


def test_a_softmaxs_time_over_its_own_is_no_answer() -> None:
    costs = {"seconds_per_epoch": 2.0, "exclusive": True}
    records = [
        make_record(head="softmax", protocol="speed-same-batch", costs=costs),
        make_record(head="mos-15", protocol="speed-same-batch", costs=costs | {"seconds_per_epoch": 3.0}),
    ]
    published = [
        number("softmax", "speed-same-batch", train_slowdown=1.0),
        number("mos-15", "speed-same-batch", train_slowdown=1.9),
    ]
    (row,) = rows(answered_markdown(answered_beside(build(records, published, show="all"))))
    assert row[1:7] == ["awd-lstm/mos-15", "train", "time over softmax's", "1.9", "1.5 (1)", "-21.1 %"]


def test_no_answer_is_no_table() -> None:
    board = build([make_record()], [number("plif", test_ppl=57.0)], show="all")
    assert answered_markdown([*answered(board), *answered_beside(board)]) == ""


def test_a_gain_differs_by_itself_and_not_in_percent() -> None:
    records = [make_record(head="softmax", test=57.46), make_record(head="sigsoftmax", test=57.21)]
    for printed, shown, differs in ((-0.06, "-0.06", "+0.31"), (0.0, "0", "+0.25")):
        published = [number("softmax", test_ppl=57.1), number("sigsoftmax", test_ppl_gain=printed)]
        (row,) = rows(answered_markdown(answered_beside(build(records, published, show="all"))))
        assert row[3:7] == ["test perplexity below softmax", shown, "0.25 (1)", differs]


def test_of_one_seed_there_is_no_p_value() -> None:
    records = [make_record(head="softmax", test=57.46), make_record(head="sigsoftmax", test=57.21)]
    published = [number("softmax", test_ppl=57.1), number("sigsoftmax", test_ppl_p_value=0.392)]
    assert not list(answered_beside(build(records, published, show="all")))
    more = [make_record(head=head, test=test, seed=9) for head, test in (("softmax", 57.5), ("sigsoftmax", 57.2))]
    (row,) = rows(answered_markdown(answered_beside(build([*records, *more], published, show="all"))))
    assert row[3:8] == ["test perplexity, p against softmax", "0.392", "0.0355 (2)", "-", "inconclusive"]


def test_a_margin_of_its_own_stands_beside_the_verdict() -> None:
    tests = {"softmax": (57.4, 57.41, 57.39), "plif": (57.2, 57.21, 57.19)}
    records = [make_record(head=head, test=test, seed=seed) for head in tests for seed, test in enumerate(tests[head])]
    gain = number("plif")
    for value, said in (
        (Value(0.43, margin=0.66), "reproduced (± 0.28)"),
        (Value(1.11, margin=0.252), "worse (± 0.28)"),
    ):
        published = [number("softmax", test_ppl=57.1), replace(gain, values={"test.ppl_gain": value})]
        board = build(records, published, show="all")
        (row,) = rows(answered_markdown(answered_beside(board)))
        assert row[7] == said
        (single,) = rows(answered_markdown(answered_beside(build(records[::3], published, show="all"))))
        assert single[7] == "single run"
