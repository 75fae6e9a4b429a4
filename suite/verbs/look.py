"""Verbs that only read: list, plan, report, show. They answer in under a second and import neither torch nor MLflow."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tabulate import tabulate

from suite.errors import InputError
from suite.records.files import no_collection
from suite.records.published import load_published
from suite.records.record import Record
from suite.records.store import Store
from suite.report.estimate import Estimator, benchmark_figures
from suite.report.files import csv_text
from suite.report.leaderboard import Leaderboard, build
from suite.report.show import render
from suite.report.table import terminal
from suite.report.tasks import TaskInfo, deviations_of
from suite.spec.components import KINDS, Plugins, describe, names
from suite.spec.json_schema import task_json_schema
from suite.spec.plan import TASKS, expand, find_tasks, load_tasks
from suite.spec.plugins import installed
from suite.spec.run_spec import RunSpec, canonical_json
from suite.spec.signatures import REQUIRED
from suite.spec.task import Task, load_task
from suite.verbs.common import chosen_cells
from suite.verbs.planned import Line, planned_text


def list_everything(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite list``."""
    if options.schema:
        print(json.dumps(task_json_schema(), indent=2))
        return 0
    parts = {"tasks": _tasks, "components": _components, "published": _published}
    for what, part in parts.items():
        if options.what in (None, what):
            print(part() + "\n")
    return 0


def _tasks() -> str:
    if not TASKS.is_dir():
        return "tasks: there is no folder tasks/ here"
    rows = []
    for task in load_tasks([]):
        seeds = len(task.seeds)
        kind = "smoke" if task.smoke else "full"
        rows.append((task.name, kind, f"{len(task.cells)} ({seeds} seed{'s' * (seeds != 1)})", task.paper, task.title))
    return "tasks\n" + tabulate(rows, headers=("name", "scope", "cells", "paper", "title"), tablefmt="simple")


def _components() -> str:
    lines = []
    plugins = Plugins.of(installed())
    for kind in KINDS:
        lines.append(f"{kind}s" if kind != "pointwise" else "pointwise functions (option of every head)")
        for name in names(kind, plugins):
            info = describe(kind, name, plugins)
            lines.append(f"  {name}: {info.summary}")
            for option in info.options:
                default = "required" if option.default is REQUIRED else f"default {json.dumps(option.default)}"
                lines.append(f"      {option.name}: {option.type}, {default}")
        lines.append("")
    return "\n".join(lines).rstrip()


def _published() -> str:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for number in load_published():
        groups[(number.citation, number.dataset)].append(number.method)
    rows = [(citation, dataset, len(methods)) for (citation, dataset), methods in groups.items()]
    table = tabulate(rows, headers=("source", "dataset", "rows"), tablefmt="simple")
    return f"published numbers (suite report --all shows them)\n{table}"


def plan(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite plan``."""
    specs = chosen_cells(options)
    store = Store(options.results)
    records = store.scan().records
    known = {record.run_key: record for record in records}
    estimator = Estimator(records, benchmark_figures(options.results, cache(_timed_cell)))
    lines: dict[object, Line] = {}
    for spec in specs:
        record = known.get(spec.run_key)
        resumes = (store.run_dir(spec.run_key) / "checkpoint.pt").exists()
        status = _status(spec, record, store, resumes)
        estimate = estimator.estimate(spec.identity, record if resumes else None) if status != "done" else None
        # Labels alone could hide two cells of one name.
        one = spec.run_key if options.all else canonical_json({**spec.identity, "seed": None})
        lines.setdefault(one, Line(spec)).add(spec, status, estimate)
    print(planned_text(list(lines.values())))
    return 0


def _status(spec: RunSpec, record: Record | None, store: Store, resumes: bool) -> str:
    if store.is_locked(spec.run_key):
        return "running"
    if record is not None:
        return "done" if record.status == "finished" else record.status
    return "resumable" if resumes else "new"


def _timed_cell(task: str, head: str) -> Mapping[str, Any] | None:
    """What a benchmark of the step timed: the identity of a task's first cell with a head."""
    found = _readable_task(task)
    specs = [] if found is None or found.abstract else expand(found)
    return next((spec.identity for spec in specs if spec.labels.head == head), None)


def report(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite report``."""
    records = _records(options.results, options.task)
    published, tasks = load_published(), _known_tasks(records)
    if options.csv:
        sys.stdout.write(csv_text(build(records, published, tasks=tasks)))
    elif records or options.all:
        _print(build(records, published, tasks=tasks, show="all" if options.all else "ours"))
    else:
        print(f"no records in {options.results} yet: `suite run demo` makes some; --all shows what is published")
    # First, since the web page shows them.
    if options.figures:
        # Matplotlib takes longer to import than everything else takes to run.
        from suite.report.figures import Sources, draw_all
        from suite.report.published_curves import load_curves

        sources = Sources(options.results, records, tasks, load_curves(), published)
        for line in draw_all(sources, tidy=not options.task):
            print(line)
    if options.write:
        from suite.report.claims import load_claims
        from suite.report.pages import Report

        pages = Report(options.results, records, published, tasks, load_claims(published))
        with no_collection():
            for path in pages.write(options.write_into):
                print(f"wrote {path}")
    return 0


def _records(results: Path, tasks: Sequence[str]) -> list[Record]:
    records, problems = Store(results).scan()
    for problem in problems:
        print(f"warning: record left out: {problem}", file=sys.stderr)
    chosen = [record for record in records if not tasks or record.task.name in tasks]
    if tasks and not chosen:
        present = ", ".join(sorted({record.task.name for record in records})) or "none"
        raise InputError(f"no records of task {' or '.join(tasks)} in {results}; there are records of: {present}")
    return chosen


def print_leaderboard(results: Path, tasks: Sequence[str] = ()) -> None:
    """The leaderboard of a results folder (or of some tasks' records in it) on the terminal.

    Raises:
        InputError: there are no records of those tasks.
    """
    records = _records(results, tasks)
    _print(build(records, load_published(), tasks=_known_tasks(records), show="ours"))


def _print(board: Leaderboard) -> None:
    print(terminal(board, max(120, shutil.get_terminal_size().columns)), end="")


def _known_tasks(records: Iterable[Record]) -> dict[str, TaskInfo]:
    """What the task files of some records say of themselves; one that is gone or broken retires nothing."""
    found = {}
    for name in sorted({record.task.name for record in records}):
        task = _readable_task(name)
        if task is not None:
            found[name] = TaskInfo.of(task)
    return found


def _readable_task(name: str) -> Task | None:
    try:
        # Every other file of tasks/ is left unread: their number must not slow a report down.
        return next((load_task(path) for path in find_tasks([name]) if path.stem == name), None)
    except InputError:
        return None


def show(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite show``."""
    record = Store(options.results).find(options.run)
    deviations = deviations_of([record], _known_tasks([record]))
    print(render(record, load_published(), _rerun_note(record), deviations))
    return 0


def _rerun_note(record: Record) -> str | None:
    """What stands between the rerun command and this very record: the task file, and the runs it was packed with."""
    said = [_task_note(record)]
    if record.costs and record.costs.packed:
        said.append("it ran packed with others: alone, other kernels may round the same seed otherwise")
    return "; ".join(filter(None, said)) or None


def _task_note(record: Record) -> str | None:
    commit = f"; at commit {record.provenance.commit[:12]} it stands as it was" if record.provenance.commit else ""
    task = _readable_task(record.task.name)
    if task is None or task.abstract:
        return f"tasks/ holds no task {record.task.name} here{commit}"
    if TaskInfo.of(task).gives(record):
        return None
    return f"{task.path} has changed since, and now gives another run{commit}"
