"""``suite profile``: where the time of a training step goes."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from suite.attempt import Attempt, RunOptions
from suite.errors import InputError
from suite.progress import Progress
from suite.records.store import Store
from suite.runner import Runner
from suite.spec import components
from suite.verbs.common import chosen_cells, chosen_device, data_access, set_threads


def profile(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite profile``."""
    specs = chosen_cells(options)
    if len(specs) != 1:
        cells = ", ".join(f"{spec.labels.method} seed {spec.seed}" for spec in specs)
        raise InputError(f"profile looks at one cell, and these are {len(specs)}: {cells}. Use --only and --seed.")
    (spec,) = specs
    set_threads(None)
    progress = Progress()
    folder: Path = options.out or Path(".profile") / spec.run_key[:12]
    with (
        tempfile.TemporaryDirectory() as scratch,
        components.using(components.Plugins.from_paths(spec.plugin_paths, spec.plugins)),
    ):
        run_options = RunOptions(
            store=Store(Path(scratch)),
            device=chosen_device(options.device),
            access=data_access(options, progress),
            progress=progress,
        )
        found = Attempt(spec, run_options, Runner(run_options).load(spec)).profile(options.steps, folder)
    rows = [(s.part, s.milliseconds, 100.0 * s.milliseconds / found.step_milliseconds) for s in found.shares]
    print(f"{spec.name}: a training step on {run_options.device}, mean of {options.steps}\n")
    print(
        tabulate(
            [*rows, ("step", found.step_milliseconds, 100.0)],
            headers=("part", "ms", "% of the step"),
            floatfmt=("", ".3f", ".1f"),
        )
    )
    print(f"\nTrace, for chrome://tracing or ui.perfetto.dev: {found.trace}")
    return 0
