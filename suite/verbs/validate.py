"""``suite validate``: task files checked, and every model built once on a device without memory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tabulate import tabulate

from suite.errors import Problem, raise_all
from suite.spec.plan import expand, load_tasks
from suite.spec.run_spec import RunSpec, canonical_json


def validate(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite validate``."""
    tasks = load_tasks(options.tasks)
    specs = [spec for task in tasks for spec in expand(task)]
    sizes = build_dry(specs)
    rows = []
    for task in tasks:
        mine = [spec for spec in specs if spec.task == task.name]
        cells = {(spec.labels.dataset, spec.labels.method): sizes[_model_key(spec)] for spec in mine}
        rows += [(task.path, dataset, method, f"{size:,}") for (dataset, method), size in cells.items()]
    print(
        tabulate(rows, headers=("task", "dataset", "method", "parameters"), colalign=("left", "left", "left", "right"))
    )
    files, all_cells = f"{len(tasks)} task file{'s' * (len(tasks) != 1)}", f"{len(specs)} cell{'s' * (len(specs) != 1)}"
    print(f"\n{files}, {all_cells}: all valid")
    return 0


def build_dry(specs: Sequence[RunSpec]) -> dict[str, int]:
    """Build each distinct model once on torch's meta device; its number of parameters, by model key.

    Raises:
        InputError: models that cannot be built, one problem each.
    """
    import torch

    from suite.models.language_model import build_model
    from suite.spec.components import Plugins, create, using

    sizes: dict[str, int] = {}
    problems: dict[str, Problem] = {}
    for spec in specs:
        key = _model_key(spec)
        if key in sizes or key in problems:
            continue
        try:
            with using(Plugins.from_paths(spec.plugin_paths, spec.plugins)), torch.device("meta"):
                dataset = create("dataset", spec.dataset)
                sizes[key] = build_model(spec, dataset.vocabulary_size, dataset.contexts).parameter_count()
        except Exception as error:
            # Whatever a component raises here, user code included, is about the cell that names it.
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            problems[key] = Problem(text, spec.task, f"{spec.labels.dataset} {spec.labels.method}")
    raise_all(list(problems.values()))
    return sizes


def _model_key(spec: RunSpec) -> str:
    parts = {name: spec.identity[name] for name in ("dataset", "encoder", "head", "plugins")}
    return canonical_json(parts)
