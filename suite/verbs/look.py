"""Verbs that only read: list, plan, report, show. They answer in under a second and import neither torch nor MLflow."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from suite.errors import InputError
from suite.progress import duration
from suite.records.published import load_published
from suite.records.record import Record
from suite.records.store import Store
from suite.report import costs
from suite.report.estimate import estimate_seconds
from suite.report.files import csv_text, has_block, update_block, write_csv
from suite.report.leaderboard import build
from suite.report.show import render
from suite.report.table import markdown, terminal
from suite.spec.components import KINDS, Plugins, describe, names
from suite.spec.json_schema import task_json_schema
from suite.spec.plan import TASKS, find_tasks, load_tasks
from suite.spec.plugins import installed
from suite.spec.run_spec import RunSpec
from suite.spec.signatures import REQUIRED
from suite.spec.task import load_task
from suite.verbs.common import chosen_cells


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
    rows, left, unknown = [], 0.0, 0
    for spec in specs:
        status = _status(spec, known.get(spec.run_key), store)
        seconds = None if status == "done" else estimate_seconds(spec, records)
        if status != "done":
            left += seconds or 0.0
            unknown += seconds is None
        shown = "" if status == "done" else duration(seconds) if seconds is not None else "?"
        rows.append(
            (
                spec.task,
                spec.labels.dataset,
                spec.labels.method,
                spec.seed,
                spec.scope,
                status,
                shown,
                spec.run_key[:12],
            )
        )
    print(tabulate(rows, headers=("task", "dataset", "method", "seed", "scope", "status", "estimate", "run key")))
    done = sum(row[5] == "done" for row in rows)
    parts = [f"about {duration(left)}"] if left else []
    parts += [f"{unknown} with no earlier run to go by"] if unknown else []
    print(
        f"\n{len(rows)} cell{'s' * (len(rows) != 1)}, {done} done, {len(rows) - done} to run"
        + (": " if parts else "")
        + ", ".join(parts)
    )
    return 0


def _status(spec: RunSpec, record: Record | None, store: Store) -> str:
    if store.is_locked(spec.run_key):
        return "running"
    if record is not None:
        return "done" if record.status == "finished" else record.status
    return "resumable" if (store.run_dir(spec.run_key) / "checkpoint.pt").exists() else "new"


def report(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite report``."""
    records = _records(options.results, options.task)
    published, versions = load_published(), _current_versions()
    if options.csv:
        sys.stdout.write(csv_text(build(records, published, current_versions=versions)))
    elif records or options.all:
        print_leaderboard(options.results, options.task, everything=options.all)
    else:
        print(f"no records in {options.results} yet: `suite run demo` makes some; --all shows what is published")
    if options.write:
        board = build(records, published, current_versions=versions, show="all")
        update_block(options.results / "LEADERBOARD.md", markdown(board), title="Leaderboard")
        write_csv(board, options.results / "leaderboard.csv")
        print(f"wrote {options.results / 'LEADERBOARD.md'} and {options.results / 'leaderboard.csv'}")
        ours = markdown(build(records, published, current_versions=versions, show="ours"))
        for path in options.write_into:
            update_block(path, ours)
            print(f"wrote the table in {path}")
            if has_block(path, "costs") and (options.results / costs.FILE).exists():
                update_block(path, costs.markdown(options.results / costs.FILE), name="costs")
                print(f"wrote the costs in {path}")
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


def print_leaderboard(results: Path, tasks: Sequence[str] = (), *, everything: bool = False) -> None:
    """The leaderboard of a results folder (or of some tasks' records in it) on the terminal.

    Raises:
        InputError: there are no records of those tasks.
    """
    board = build(
        _records(results, tasks),
        load_published(),
        current_versions=_current_versions(),
        show="all" if everything else "ours",
    )
    print(terminal(board, max(120, shutil.get_terminal_size().columns)), end="")


def _current_versions() -> dict[str, int]:
    """The version of every task file that can be read; a broken one retires nothing."""
    versions = {}
    for path in find_tasks([]) if TASKS.is_dir() else []:
        try:
            task = load_task(path)
        except InputError:
            continue
        versions[task.name] = task.version
    return versions


def show(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite show``."""
    print(render(Store(options.results).find(options.run), load_published()))
    return 0
