"""From tasks to the runs of one command: find the files, expand the cells, filter, shorten."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from suite.errors import InputError, Problem, raise_all
from suite.spec.components import used_plugins
from suite.spec.explain import choices
from suite.spec.matrix import AXES, Cell, matches
from suite.spec.plugins import PluginFile
from suite.spec.run_spec import Labels, RunSpec
from suite.spec.task import Task, load_task

TASKS = Path("tasks")
_SUFFIXES = (".yaml", ".yml")


def find_tasks(arguments: Sequence[str]) -> list[Path]:
    """The task files some arguments name, each once, in order.

    An argument is a file, a directory (its ``*.yaml``, sorted), a glob, or a bare name (``smoke-ptb`` is
    ``tasks/smoke-ptb.yaml``). None at all means every file in ``tasks/``.

    Raises:
        InputError: an argument names nothing; the message lists what there is.
    """
    return [path for path, _ in _find(arguments)]


def load_tasks(arguments: Sequence[str]) -> list[Task]:
    """Every task some arguments name (see :func:`find_tasks`), with the problems of all files reported at once.

    Abstract tasks are passed over, unless an argument names one as such.

    Raises:
        InputError: a file is wrong, an argument names nothing or names an abstract task.
    """
    tasks: list[Task] = []
    problems: list[Problem] = []
    for path, named in _find(arguments):
        try:
            task = load_task(path)
        except InputError as error:
            problems += error.problems
            continue
        if not task.abstract:
            tasks.append(task)
        elif named:
            problems.append(_abstract(task))
    # Two files that extend a broken third both report it.
    raise_all(list(dict.fromkeys(problems)))
    return tasks


def expand(task: Task) -> list[RunSpec]:
    """Every run of a task, in the order of its cells: dataset, encoder, head, seed; included cells last.

    Raises:
        InputError: the task is abstract.
    """
    if task.abstract:
        raise InputError(_abstract(task))
    used: dict[tuple[str, ...], dict[str, PluginFile]] = {}
    return [_spec(task, cell, used) for cell in task.cells]


def _abstract(task: Task) -> Problem:
    return Problem("is abstract: a base for other task files to extend, not a task to run", str(task.path))


def _spec(task: Task, cell: Cell, used: dict[tuple[str, ...], dict[str, PluginFile]]) -> RunSpec:
    dataset, encoder, head = cell.dataset.spec, cell.encoder.spec, cell.head.spec
    triple = cell.labels[:3]
    if triple not in used:
        components = {"dataset": (dataset,), "encoder": (encoder,), "head": (head,), "stage": task.stages}
        used[triple] = used_plugins(components, task.plugins)
    return RunSpec(
        task=task.name,
        version=task.version,
        dataset=dataset,
        encoder=encoder,
        head=head,
        recipe=cell.recipe,
        stages=task.stages,
        seed=cell.seed,
        scope="smoke" if task.smoke else "full",
        labels=Labels(*triple),
        title=task.title,
        paper=task.paper,
        protocol=task.protocol,
        plugins={name: file.sha256 for name, file in used[triple].items()},
        plugin_paths={name: str(file.path.resolve()) for name, file in used[triple].items()},
    )


def select(specs: Sequence[RunSpec], only: Iterable[str] = (), seeds: Iterable[int] = ()) -> list[RunSpec]:
    """The runs that pass every filter, in order.

    ``only`` holds ``key=value`` with key dataset, encoder or head; value is a label, a component's name or a glob over
    either, and an exact label means that one alone. Filters of one key widen each other, filters of different keys
    narrow. ``seeds`` keeps those seeds.

    Raises:
        InputError: a filter is malformed or matches nothing, or all of them together do; it lists the labels.
    """
    filters: dict[str, list[Callable[[RunSpec], bool]]] = {}
    problems: list[Problem] = []
    for text in only:
        key, equals, value = text.partition("=")
        if not (equals and key and value):
            problems.append(Problem(f"--only {text}: expected key=value, for example head=mos"))
        elif key not in AXES:
            problems.append(Problem(f"--only {text}: unknown key {key!r}.{choices(key, AXES)}"))
        elif not any(map(passes := _filter(specs, key, value), specs)):
            known = ", ".join(dict.fromkeys(getattr(spec.labels, key) for spec in specs))
            problems.append(Problem(f"--only {text}: no {key} matches {value!r}. Labels: {known}"))
        else:
            filters.setdefault(key, []).append(passes)
    wanted = list(seeds)
    for seed in wanted:
        if all(spec.seed != seed for spec in specs):
            known = ", ".join(str(seed) for seed in dict.fromkeys(spec.seed for spec in specs))
            problems.append(Problem(f"--seed {seed}: no run has it. Seeds: {known}"))
    raise_all(problems)
    kept = [
        spec
        for spec in specs
        if (not wanted or spec.seed in wanted)
        and all(any(passes(spec) for passes in alternatives) for alternatives in filters.values())
    ]
    if specs and not kept:
        cells = ", ".join(dict.fromkeys(f"{spec.labels.dataset} {spec.labels.method}" for spec in specs))
        raise InputError(f"no run passes all the filters together. Cells: {cells}")
    return kept


def _filter(specs: Sequence[RunSpec], key: str, value: str) -> Callable[[RunSpec], bool]:
    """Whether a run is meant by ``value``: its label where some run has exactly that one, else its name or a glob."""
    if any(getattr(spec.labels, key) == value for spec in specs):
        return lambda spec: bool(getattr(spec.labels, key) == value)
    return lambda spec: matches(getattr(spec.labels, key), value) or matches(getattr(spec, key).name, value)


def shorten(specs: Iterable[RunSpec], max_epochs: int) -> list[RunSpec]:
    """The runs with at most ``max_epochs`` epochs; one that loses epochs is of scope ``short`` (or stays ``smoke``).

    Raises:
        InputError: ``max_epochs`` is not positive.
    """
    if max_epochs < 1:
        raise InputError(f"--max-epochs {max_epochs}: expected a positive integer")
    return [_shortened(spec, max_epochs) for spec in specs]


def _shortened(spec: RunSpec, max_epochs: int) -> RunSpec:
    budget = spec.recipe["budget"]
    if budget["epochs"] <= max_epochs:
        return spec
    recipe = {**spec.recipe, "budget": {**budget, "epochs": max_epochs}}
    return replace(spec, recipe=recipe, scope="smoke" if spec.scope == "smoke" else "short")


def _find(arguments: Sequence[str]) -> list[tuple[Path, bool]]:
    """Task files, each with whether it was named itself rather than found in a directory or by a glob."""
    found: dict[Path, bool] = {}
    problems: list[Problem] = []
    for argument in arguments or [str(TASKS)]:
        try:
            paths, named = _matching(argument)
        except (OSError, ValueError):  # a name no file can have
            paths, named = [], True
        if not paths:
            problems.append(Problem(_nothing(argument)))
        for path in paths:
            found[path] = found.get(path, False) or named
    raise_all(problems)
    return list(found.items())


def _matching(argument: str) -> tuple[list[Path], bool]:
    path = Path(argument)
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES), False
    if path.exists():
        return [path], True
    by_name = [TASKS / f"{argument}{suffix}" for suffix in _SUFFIXES]
    if existing := [p for p in by_name if p.is_file()]:
        return existing[:1], True
    if glob.has_magic(argument):
        matched = glob.glob(argument) or [str(p) for p in TASKS.glob("*") if matches(p.stem, argument)]
        return sorted(p for p in map(Path, matched) if p.suffix in _SUFFIXES), False
    return [], True


def _nothing(argument: str) -> str:
    if Path(argument) == TASKS or Path(argument).is_dir():
        return f"no task file (*.yaml) in {argument}"
    known = sorted(path.stem for path in TASKS.glob("*.yaml")) if TASKS.is_dir() else []
    return f"no task file {argument!r}.{choices(argument, known)}"
