"""What is said of a row before its numbers, and which records are stale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from records_factory import make_record
from test_leaderboard import TASKS, sample, seeds
from tiny_tasks import TINY

from suite.records.record import Record, TaskRef
from suite.report.leaderboard import build
from suite.report.marks import marks
from suite.report.rerun import cell_rerun_command
from suite.report.tasks import TaskInfo, Tasks, is_stale
from suite.spec.plan import expand, shorten
from suite.spec.run_spec import RunSpec
from suite.spec.task import load_task


def said(records: list[Record], tasks: Tasks | None = None) -> list[list[str]]:
    (section,) = build(records, [], tasks=tasks).sections
    return [[text for _, text in marks(row, tasks or {})] for row in (*section.rows, *section.short)]


def test_what_may_be_taken_as_it_is_has_no_mark() -> None:
    assert said(seeds(56.0, 56.1)) == [[]]


def test_one_seed_packed_short_and_smoke_runs_are_marked() -> None:
    packed = {"packed": True}
    assert said(seeds(56.0)) == [["single seed: no interval"]]
    assert said(seeds(56.0, 56.1, costs=packed)) == [["packed: shared the GPU, costs do not count"]]
    some = [make_record(seed=1), make_record(seed=2, costs=packed), make_record(seed=3)]
    assert said(some) == [["packed (1 of 3 runs): shared the GPU, costs do not count"]]
    assert said([make_record(scope="short")]) == [["short run: not comparable"]]
    assert said([make_record(scope="smoke", costs=packed)]) == [
        ["smoke run: not comparable", "packed: shared the GPU, costs do not count"]
    ]


def test_a_partial_cell_says_how_far_it_got() -> None:
    records, published = sample()
    (row,) = [
        row
        for section in build(records, published, tasks=TASKS).sections
        for row in section.rows
        if row.method == "awd-lstm/moc-15" and row.published
    ]
    assert [text for _, text in marks(row, TASKS)] == ["partial: 22 of 1,000 epochs, fills no cell"]


def record_of(spec: RunSpec) -> Record:
    record = make_record(seed=spec.seed, scope=spec.scope, task=spec.task)
    labels = record.labels.model_copy(
        update={name: getattr(spec.labels, name) for name in ("dataset", "encoder", "head")}
    )
    task = TaskRef(name=spec.task, version=spec.version)
    return record.model_copy(update={"run_key": spec.run_key, "spec": spec.identity, "labels": labels, "task": task})


@pytest.fixture
def info(tmp_path: Path) -> TaskInfo:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("smoke: true\n", ""))
    return TaskInfo.of(load_task(path))


def test_a_record_is_stale_once_its_task_file_gives_another_run(info: TaskInfo) -> None:
    assert info.specs
    tasks = {info.specs[0].task: info}
    for spec in info.specs:
        record = record_of(spec)
        assert not is_stale(record, tasks)
        # A label is no part of a run.
        renamed = record.labels.model_copy(update={"head": "otherwise"})
        assert not is_stale(record.model_copy(update={"labels": renamed}), tasks)
        assert is_stale(record_of(replace(spec, recipe={**spec.recipe, "batch_size": 77})), tasks)
        assert is_stale(record_of(replace(spec, seed=77)), tasks)


def test_a_shortened_run_is_stale_by_what_it_was_shortened_from(info: TaskInfo) -> None:
    assert info.specs
    epochs = info.specs[0].recipe["budget"]["epochs"]
    longer = [
        replace(s, recipe={**s.recipe, "budget": {**s.recipe["budget"], "epochs": epochs + 5}}) for s in info.specs
    ]
    tasks = {longer[0].task: replace(info, specs=tuple(longer))}
    (short,) = shorten(longer[:1], 1)
    assert not is_stale(record_of(short), tasks)
    changed = replace(short, recipe={**short.recipe, "batch_size": 77})
    assert is_stale(record_of(changed), tasks)


def test_a_task_that_nobody_knows_makes_nothing_stale() -> None:
    record = make_record()
    assert not is_stale(record, {})
    assert not is_stale(record, {record.task.name: TaskInfo(1)})
    assert is_stale(record, {record.task.name: TaskInfo(1, specs=())})


def test_stale_rows_say_so_and_how_many_runs_are() -> None:
    records = [*seeds(56.0, 56.1, task="a")]
    assert said(records, {"a": TaskInfo(1, specs=())}) == [["stale: the task file has changed since"]]


def test_one_command_runs_all_seeds_of_a_cell_again() -> None:
    assert cell_rerun_command([make_record(seed=seed, head="a b") for seed in (3, 1)]) == (
        "suite run mos-ptb --only dataset=ptb --only encoder=awd-lstm --only 'head=a b' --seed 3 --seed 1 --rerun"
    )


def test_the_plan_and_the_mark_agree(info: TaskInfo, tmp_path: Path) -> None:
    assert info.specs == tuple(expand(load_task(tmp_path / "tiny.yaml")))
