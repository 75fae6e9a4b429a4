"""The command that runs a record's experiment again, and how far a run got that fills no cell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from suite.records.metrics import PRIMARY_METRICS
from suite.records.record import Record
from suite.records.recovery import MADE_OF_EVENTS
from suite.report import formatting
from suite.report.tasks import Tasks, full_epochs


def cell_command(record: Record, *, shortened: bool = True) -> str:
    """``suite run TASK --only ... --seed N``: this cell alone; ``shortened=False`` leaves a short run's bound out."""
    labels = record.labels.model_dump()
    words = ["suite", "run", record.task.name]
    for axis in ("dataset", "encoder", "head"):
        words += ["--only", f"{axis}={labels[axis]}"]
    words += ["--seed", str(record.seed)]
    epochs = rerun_epochs(record)
    if shortened and epochs is not None:
        words += ["--max-epochs", str(epochs)]
    return shlex.join(words)


def rerun_epochs(record: Record) -> int | None:
    """What ``--max-epochs`` must say; None for a full run, which has the epochs of its task file."""
    epochs = record.spec.get("recipe", {}).get("budget", {}).get("epochs")
    return None if record.scope == "full" or epochs is None else int(epochs)


def cell_rerun_command(records: Sequence[Record]) -> str:
    """One line that gives the numbers of a cell's finished records again, one ``--seed`` each."""
    seeds = [word for record in records[1:] for word in ("--seed", str(record.seed))]
    return f"{cell_command(records[0])} {shlex.join([*seeds, '--rerun'])}"


def rerun_command(record: Record) -> str:
    """One line that gives this record's number again: :func:`cell_command`, past the record that is there.

    A run that did not finish needs no ``--rerun``: the same command goes on from its checkpoint, where there is one.
    """
    return cell_command(record) + (" --rerun" if record.status == "finished" else "")


@dataclass(frozen=True, slots=True)
class Partial:
    """How far a shortened or unfinished run of a cell got; ``of`` is the whole budget where it is known."""

    record: Record
    stage: str
    epochs: int
    of: int | None
    metric: str | None = None
    value: float | None = None

    @property
    def reached(self) -> str:
        """``22 of 1,000 epochs``, with the stage where the run has several."""
        whole = f" of {self.of:,}" if self.of is not None else ""
        count = self.of if self.of is not None else self.epochs
        stages = self.record.spec.get("stages", ())
        prefix = f"{self.stage}: " if len(stages) > 1 else ""
        return f"{prefix}{self.epochs:,}{whole} epoch{'s' * (count != 1)}"

    @property
    def last(self) -> str:
        """``last validation perplexity 78.33``; empty where its curve has none."""
        if self.metric is None or self.value is None:
            return ""
        title = formatting.metric_title(self.metric)
        return f"last validation {title} {formatting.metric(self.value, self.metric)}"

    @property
    def command(self) -> str:
        """What goes on with an unfinished run, or gives the whole one where this was shortened."""
        return cell_command(self.record, shortened=False)

    @property
    def advice(self) -> str:
        """What :attr:`command` does; the checkpoint of a run that left no record but its event log is gone with it."""
        if self.record.message == MADE_OF_EVENTS:
            return "to run again"
        return {"finished": "the whole run", "interrupted": "to go on"}.get(self.record.status, "to try again")


def partial_of(record: Record, tasks: Tasks) -> Partial:
    """How far a run got, by the last point of its curve."""
    last = record.curves[-1] if record.curves else {}
    stages = [str(stage["name"]) for stage in record.spec.get("stages", ())] or ["train"]
    stage = stages[min(int(last.get("stage", 0)), len(stages) - 1)]
    metric = next((name for name in PRIMARY_METRICS if f"valid_{name}" in last), None)
    value = last[f"valid_{metric}"] if metric else None
    # A run without a curve that finished has done what its budget allowed.
    done = record.spec["recipe"]["budget"]["epochs"] if record.status == "finished" else 0
    return Partial(record, stage, int(last.get("epoch", done)), full_epochs(record, tasks), metric, value)


def furthest(records: Iterable[Record], tasks: Tasks) -> Partial | None:
    """Of several runs of one cell, the one that got furthest; smoke runs are of other sizes and do not count."""
    found = [partial_of(record, tasks) for record in records if record.scope != "smoke"]
    return max(found, key=lambda part: (part.epochs, part.record.run_key), default=None)
