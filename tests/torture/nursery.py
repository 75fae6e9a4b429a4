"""Commands run in forked processes that meet a fault, and what must be true of the results afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_tasks import TINY, outcome

from suite.records.record import Record
from suite.records.store import Store

# Weights that another stage changes, and a stage that walks the data and stops in it.
TASK = (
    TINY.replace("900", "400")
    .replace("200", "100")
    .replace("recipe:\n", "stages: [train, {name: finetune, epochs: 1}, dynamic-evaluation]\nrecipe:\n")
)
RUN = ["run", "tiny", "--only", "head=softmax", "--seed", "1", "--device", "cpu", "--threads", "1", "--no-mlflow",
       "--checkpoint-seconds", "1e-9"]  # fmt: skip
REPORT = ["report", "--write"]
SYNC = ["sync"]


@dataclass(frozen=True)
class Ending:
    """What became of a process: exit status (negative: the signal), file operations it got to, what it said."""

    status: int
    operations: int
    out: str
    err: str


class Nursery:
    """The process that forks; see ``victims.py``."""

    def __init__(self, *modules: str) -> None:
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        environment.pop("SUITE_RESULTS", None)
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("victims.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._ask(modules)  # ready

    def run(self, desk: Path, *commands: Sequence[str], **fault: float) -> Ending:
        """The commands in a fresh process with the working directory ``desk``."""
        return self.run_at_once([(commands, fault)], desk)[0]

    def run_at_once(
        self, orders: Sequence[tuple[Sequence[Sequence[str]], dict[str, float]]], desk: Path
    ) -> list[Ending]:
        """Commands and fault of each of several processes that work in ``desk`` at the same time."""
        folder = str(desk)
        asked = [{"folder": folder, "commands": commands, "fault": fault} for commands, fault in orders]
        return [Ending(**ending) for ending in self._ask(asked)]

    def _ask(self, order: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def make_desk(folder: Path) -> Path:
    """A working directory with the task in it."""
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks/tiny.yaml").write_text(TASK)
    return folder


def tree(desk: Path) -> set[str]:
    """Every file below the results, but SQLite's own journals."""
    results = desk / "results"
    files = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    return {file for file in files if not file.endswith(("-wal", "-shm", "-journal"))}


def only_record(desk: Path) -> Record:
    """The one record there is; every JSON file must be whole, and no lock be held."""
    store = Store(desk / "results")
    for path in store.root.rglob("*.json"):
        json.loads(path.read_text())
    (record,) = store.load()
    assert not store.is_locked(record.run_key)
    return record


def same(desk: Path, reference: Path) -> bool:
    """Whether the results are those of an undisturbed run, to the bit, and there is no file besides."""
    return outcome(only_record(desk)) == outcome(only_record(reference)) and tree(desk) == tree(reference)
