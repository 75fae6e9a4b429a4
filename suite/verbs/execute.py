"""``suite run``: cells to records."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from suite.attempt import RunOptions
from suite.errors import InputError
from suite.progress import Progress
from suite.records.mirror import Mirror
from suite.records.store import Store
from suite.runner import Runner
from suite.trained import trained
from suite.verbs.common import chosen_cells, chosen_device, data_access, set_threads
from suite.verbs.look import print_leaderboard
from suite.verbs.validate import build_dry


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """``suite run``."""
    specs = chosen_cells(options)
    device = chosen_device(options.device)
    if options.pack > 1 and device.type != "cuda":
        raise InputError(f"--pack {options.pack}: runs are packed on a GPU; on a CPU they would only slow each other")
    set_threads(options.threads)
    # Every model is built once before anything is trained: a size that does not fit must not surface hours later.
    build_dry(specs)
    progress = Progress()
    store = Store(options.results)
    given = None
    if options.train_from is not None:
        if len(specs) != 1:
            raise InputError(f"--train-from takes one cell, and these are {len(specs)}; use --only and --seed")
        given = trained(specs[0], store, options.train_from)
    mirror = None if options.no_mlflow else Mirror(options.results)
    with _stopping(options.max_minutes) as stop:
        run_options = RunOptions(
            store=store,
            device=device,
            access=data_access(options, progress),
            progress=progress,
            arguments=arguments,
            rerun=options.rerun,
            checkpoint_seconds=options.checkpoint_seconds,
            stop=stop,
            graphs=not options.eager,
            packed=options.pack > 1,
            trained=given,
        )
        if mirror is not None:
            mirror.start()
        try:
            runner = Runner(run_options)
            summary = runner.run_packed(specs, options.pack) if options.pack > 1 else runner.run_all(specs)
        finally:
            if mirror is not None:
                outcome = mirror.stop()
                progress.say(_mirror_line(outcome.state, outcome.detail))
    failed = summary.count("failed", "diverged")
    done, skipped, busy = summary.count("finished"), summary.count("skipped"), summary.count("busy")
    words = [f"{done} finished", f"{skipped} done before", f"{failed} failed", f"{busy} running elsewhere"]
    print(", ".join(word for word in words if not word.startswith("0 ")) or "nothing to run")
    print()
    if summary.outcomes and summary.count("busy") < len(summary.outcomes):
        print_leaderboard(options.results, sorted({spec.task for spec in specs}))
    print(f"\nCompare the runs in the browser: {_own_command()} ui --results {options.results}")
    return 1 if failed else 0


def _own_command() -> str:
    """How this command is typed here: its name where the shell finds it, else as it was typed, with its path."""
    if shutil.which("suite"):
        return "suite"
    typed = os.path.relpath(sys.argv[0])
    return "python -m suite" if os.path.basename(typed) == "__main__.py" else typed


def _mirror_line(state: str, detail: str) -> str:
    if state == "delivered":
        return "MLflow: every run is in the registry"
    return f"MLflow: {state}, nothing is lost: {detail}"


@contextmanager
def _stopping(max_minutes: float | None) -> Iterator[Callable[[], str | None]]:
    """Answers why to stop, if at all: a first Ctrl-C or SIGTERM, or the time limit. A second Ctrl-C stops at once."""
    deadline = time.monotonic() + 60 * max_minutes if max_minutes is not None else None
    reason: str | None = None

    def notice(number: int, _frame: FrameType | None) -> None:
        nonlocal reason
        if reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        reason = "interrupted" if number == signal.SIGINT else "asked to end"

    def stop() -> str | None:
        if reason is None and deadline is not None and time.monotonic() > deadline:
            return f"--max-minutes {max_minutes:g} is over"
        return reason

    earlier = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
