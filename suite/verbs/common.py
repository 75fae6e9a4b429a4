"""What several verbs share: choosing cells, and where the project's own folders are."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from suite.data.base import DataAccess
from suite.errors import InputError
from suite.progress import Progress
from suite.spec.plan import expand, load_tasks, select, shorten
from suite.spec.run_spec import RunSpec

if TYPE_CHECKING:
    import torch


def chosen_cells(options: argparse.Namespace) -> list[RunSpec]:
    """The cells that the options of ``plan`` and ``run`` name, each once.

    Raises:
        InputError: a task file is wrong, or a filter matches nothing.
    """
    specs = [spec for task in load_tasks(options.tasks) for spec in expand(task)]
    specs = select(specs, only=options.only, seeds=options.seed)
    if options.max_epochs is not None:
        specs = shorten(specs, options.max_epochs)
    return list({spec.run_key: spec for spec in specs}.values())


def data_access(options: argparse.Namespace, progress: Progress) -> DataAccess:
    """Where corpora may be looked for, by the options and the environment.

    Raises:
        InputError: --data-dir is not a folder.
    """
    folder: Path | None = options.data_dir
    if folder is not None and not folder.is_dir():
        raise InputError(f"--data-dir {folder}: no such folder")
    if folder is None and not os.environ.get("SUITE_DATA"):
        # A checkout may keep its corpora in data/, which is never committed.
        beside = Path("data")
        folder = beside if beside.is_dir() else None
    return DataAccess(data_dir=folder, offline=options.offline, say=lambda line: progress.say("  " + line))


def chosen_device(asked: str | None) -> torch.device:
    """The device that --device names, or a GPU where there is one.

    Raises:
        InputError: a GPU is asked for and torch sees none.
    """
    # Other verbs, which answer at once, share this module.
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda: torch sees no GPU here; use --device cpu, or a CUDA build of torch with a driver"
        )
    return torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))


def set_threads(asked: int | None, groups: Path = Path("/sys/fs/cgroup")) -> None:
    """Set torch's CPU threads: those that --threads names, else torch's own choice within the container's share.

    Args:
        asked: of --threads, or None.
        groups: where the kernel says what share of the machine this process may use (cgroup version 2 or 1).
    """
    import torch

    if asked is None:
        # Torch takes a thread a core of the machine. On two cores of one's own that is best, also for small models: an
        # AWD-LSTM-MoS step of 10,000 words took 211 ms with two threads and 305 with one, of 1,000 words 17 and 22, of
        # 100 words 5.3 and 5.3. But threads beyond the share wait for each other: 25 ms became 470 with eight.
        share = _share(groups)
        asked = min(torch.get_num_threads(), max(1, int(share))) if share else None
    if asked is not None:
        torch.set_num_threads(asked)


def _share(groups: Path) -> float | None:
    """CPUs' worth of time that a container's quota allows, or None without a quota."""
    try:
        quota, period = (groups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return float(quota) / float(period) if float(quota) > 0 else None
    except ValueError:  # "max": no bound
        return None
