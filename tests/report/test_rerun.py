"""From a number to the run behind it, and back by one command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record

from suite.cli import main
from suite.records.published import Paper, Published, Value
from suite.records.record import LabelRef, Record, TaskRef
from suite.records.recovery import MADE_OF_EVENTS
from suite.records.store import Store, file_name
from suite.report.compare import Verdict
from suite.report.leaderboard import build
from suite.report.rerun import cell_command, furthest, partial_of, rerun_command
from suite.report.table import markdown, terminal
from suite.report.tasks import TaskInfo
from suite.spec.plan import expand, shorten
from suite.spec.run_spec import RunSpec
from suite.spec.task import Deviation, load_task

TASK = """\
title: Cells under labels that a shell would read
version: 3
protocol: test
dataset: {name: hidden-markov, label: a language, vocabulary: 20, states: 6}
encoder: {name: lstm, embedding: 6, hidden: [8], tied: false}
heads:
  - {name: softmax, dimension: 3}
  - {name: mos, experts: 2, dimension: 3, label: mos (2)}
seeds: [1, 2]
recipe: {budget: {epochs: 5}}
"""
PAPER = Paper("yang2018", "Breaking", ("A B", "C D", "E F"), "ICLR", 2018)


def record_of(spec: RunSpec, **changes: object) -> Record:
    return make_record().model_copy(
        update={
            "run_key": spec.run_key,
            "spec": spec.identity,
            "scope": spec.scope,
            "seed": spec.seed,
            "task": TaskRef(name=spec.task, version=spec.version, protocol=spec.protocol),
            "labels": LabelRef(dataset=spec.labels.dataset, encoder=spec.labels.encoder, head=spec.labels.head),
            **changes,
        }
    )


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "odd.yaml").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    full = expand(load_task(Path("tasks/odd.yaml")))
    return [*full, *shorten(full, 2)]


def test_the_command_names_the_run_and_no_other(specs: list[RunSpec], capsys: pytest.CaptureFixture[str]) -> None:
    for spec in specs:
        words = shlex.split(rerun_command(record_of(spec)))
        assert words[:2] == ["suite", "run"]
        assert words.pop() == "--rerun"
        assert main(["plan", *words[2:]]) == 0
        said = capsys.readouterr().out
        assert spec.run_key[:12] in said
        assert "\n1 cell, " in said


def test_an_unfinished_run_goes_on_without_rerun() -> None:
    stopped = make_record(status="interrupted", message="stopped")
    assert rerun_command(stopped) == (
        "suite run mos-ptb --only dataset=ptb --only encoder=awd-lstm --only head=mos-15 --seed 1"
    )
    short = make_record(scope="short", recipe={"budget": {"epochs": 22}})
    assert rerun_command(short).endswith("--seed 1 --max-epochs 22 --rerun")
    assert cell_command(short, shortened=False).endswith("--seed 1")


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_label_escapes_its_word(head: str, task: str) -> None:
    base = make_record()
    record = base.model_copy(
        update={
            "labels": base.labels.model_copy(update={"head": head}),
            "task": base.task.model_copy(update={"name": task}),
        }
    )
    assert shlex.split(cell_command(record))[2] == task
    assert f"head={head}" in shlex.split(cell_command(record))


def test_show_prints_the_command_and_says_when_the_task_has_changed(
    specs: list[RunSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = record_of(specs[0])
    Store(tmp_path).write(record)
    command = "suite run odd --only 'dataset=a language' --only encoder=lstm --only head=softmax --seed 1 --rerun"
    show = ["show", record.run_key[:8], "--results", str(tmp_path)]
    assert main(show) == 0
    assert f"Run it again\n  command  {command}\n\n" in capsys.readouterr().out
    assert record.costs is not None
    packed_costs = record.costs.model_copy(update={"packed": True})
    Store(tmp_path).write(record.model_copy(update={"costs": packed_costs}))
    assert main(show) == 0
    packed = "it ran packed with others: alone, other kernels may round the same seed otherwise"
    assert f"  command  {command}\n  note     {packed}\n" in capsys.readouterr().out
    Store(tmp_path).write(record)
    (tmp_path / "tasks" / "odd.yaml").write_text(TASK.replace("epochs: 5", "epochs: 6"))
    assert main(show) == 0
    note = "tasks/odd.yaml has changed since, and now gives another run; at commit 000000000000 it stands as it was"
    assert f"  command  {command}\n  note     {note}\n" in capsys.readouterr().out
    (tmp_path / "tasks" / "odd.yaml").unlink()
    assert main(show) == 0
    assert "  note     tasks/ holds no task odd here; at commit" in capsys.readouterr().out


def test_how_far_a_run_got() -> None:
    curve = [{"epoch": 21.0, "valid_ppl": 80.0}, {"epoch": 22.0, "valid_ppl": 78.33}]
    short = make_record(scope="short", recipe={"budget": {"epochs": 22}}, curves=curve)
    known = {"mos-ptb": TaskInfo(1, {("ptb", "awd-lstm/mos-15"): 1000})}
    assert partial_of(short, known).reached == "22 of 1,000 epochs"
    assert partial_of(short, {}).reached == "22 epochs"
    recipe = {"budget": {"epochs": 90}}
    later = make_record(
        status="interrupted", stages=("train", "finetune"), recipe=recipe, curves=[{"epoch": 3.0, "stage": 1.0}]
    )
    assert partial_of(later, known).reached == "finetune: 3 of 90 epochs"
    smoke = make_record(scope="smoke", curves=[{"epoch": 99.0}])
    best = furthest([short, later, smoke], known)
    assert best is not None
    assert (best.record, best.metric, best.value) == (short, "ppl", 78.33)
    assert furthest([smoke], known) is None


def published(head: str = "mos-15", **fields: object) -> Published:
    base: dict[str, object] = {
        "paper": PAPER, "table": "1", "dataset": "ptb", "encoder": "awd-lstm", "head": head, "protocol": "nt-asgd",
        "stage": "train", "values": {"test.ppl": Value(56.0)}, "source": "table 1",
    }  # fmt: skip
    return Published(**{**base, **fields})  # type: ignore[arg-type]


def test_a_partial_run_fills_no_cell_and_says_how_to_go_on() -> None:
    stopped = make_record(
        status="interrupted", curves=[{"epoch": 62.0, "valid_ppl": 63.8}], recipe={"budget": {"epochs": 1000}}
    )
    later = published(stage="finetune", table="2")
    board = build([stopped], [published(), later])
    first, second = (section.rows[0] for section in board.sections)
    assert (first.verdict, first.cell) == (Verdict.PARTIAL, None)
    assert second.verdict is Verdict.NOT_RUN, "the run has no such stage"
    assert (
        f"- awd-lstm/mos-15 is partial: 62 of 1,000 epochs (seed 1, [{stopped.run_key[:8]}]), last validation "
        f"perplexity 63.80; to go on: `{rerun_command(stopped)}`\n"
    ) in markdown(board)
    assert " 63.80 " not in next(line for line in markdown(board).splitlines() if line.startswith("| awd-lstm/mos-15"))
    # A finished run of another seed fills the cell; the partial one is then a note of the row.
    done = make_record(seed=2, recipe={"budget": {"epochs": 1000}})
    (row, *_) = build([stopped, done], [published()]).sections[0].rows
    assert (row.verdict, row.partial, row.notes) == (Verdict.SINGLE_RUN, None, ("1 interrupted",))


def test_a_run_that_left_its_event_log_alone_has_no_checkpoint_to_go_on_from() -> None:
    curve = [{"epoch": 62.0, "valid_ppl": 63.8}]
    killed = make_record(status="interrupted", curves=curve, message=MADE_OF_EVENTS)
    stopped = make_record(status="interrupted", curves=curve, message="--max-minutes 1.78 is over")
    failed = make_record(status="failed", message="out of memory")
    advice = [partial_of(record, {}).advice for record in (killed, stopped, failed)]
    assert advice == ["to run again", "to go on", "to try again"]
    assert f"; to run again: `{cell_command(killed)}`\n" in markdown(build([killed], [published()]))


def test_data_that_nobody_can_fetch_is_asked_for() -> None:
    number = published("mos", table="4", dataset="switchboard", encoder="seq2seq", unavailable="a corpus under licence")
    board = build([], [number], show="all")
    assert board.sections[0].rows[0].verdict is Verdict.UNAVAILABLE
    assert "- seq2seq/mos: data not available; needed: a corpus under licence\n" in markdown(board)
    assert "  seq2seq/mos: data not available; needed: a corpus under licence" in terminal(board)


def test_every_row_of_ours_links_to_its_records() -> None:
    records = [make_record(seed=seed) for seed in (1, 2)] + [make_record(scope="short", head="moc-15", seed=7)]
    text = markdown(build(records, []), "results/records")
    for record in records:
        assert f"[{record.run_key[:8]}]" in text
        assert f"\n[{record.run_key[:8]}]: results/records/{file_name(record)}\n" in text


def test_deviations_stand_beside_the_numbers_they_touch() -> None:
    one = Deviation(what="TF32.", why="Speed.", effect="None seen.", touches="mos-*")
    two = Deviation(what="300 epochs.", why="Time.", effect="At most +0.1 expected.")
    tasks = {"mos-ptb": TaskInfo(1, {}, (one, two))}
    board = build([make_record(), make_record(head="softmax"), make_record(head="plif", task="other")], [], tasks=tasks)
    text = markdown(board)
    assert "| awd-lstm/mos-15 ¹ ² |" in text
    assert "| awd-lstm/softmax ²  |" in text
    assert "| awd-lstm/plif       |" in text
    assert (
        "- ¹ TF32; why: Speed; effect: None seen.\n- ² 300 epochs; why: Time; effect: At most +0.1 expected.\n" in text
    )
    assert "  ¹ TF32; why: Speed; effect: None seen." in terminal(board)
