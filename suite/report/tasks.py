"""What the report knows of the task files: current versions, full budgets, deviations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from suite.records.record import Record
from suite.spec.task import Deviation, Task


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as its file stands now; ``budgets`` maps dataset and ``encoder/head`` to the epochs of a full run."""

    version: int
    budgets: Mapping[tuple[str, str], int] = field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()

    @classmethod
    def of(cls, task: Task) -> TaskInfo:
        """The facts of a checked task file."""
        budgets = {}
        for cell in task.cells:
            dataset, encoder, head = cell.labels[:3]
            budgets[dataset, f"{encoder}/{head}"] = int(cell.recipe["budget"]["epochs"])
        return cls(task.version, budgets, task.deviations)


Tasks = Mapping[str, TaskInfo]


def is_current(record: Record, tasks: Tasks) -> bool:
    """Whether the record is of its task's current version; a task that is not known is taken as it is."""
    info = tasks.get(record.task.name)
    return info is None or info.version == record.task.version


def full_epochs(record: Record, tasks: Tasks) -> int | None:
    """Epochs that the whole run has: the recipe's own for a full run, the task file's for a shortened one."""
    if record.scope == "full":
        epochs = record.spec.get("recipe", {}).get("budget", {}).get("epochs")
        return None if epochs is None else int(epochs)
    info = tasks.get(record.task.name)
    return info.budgets.get((record.labels.dataset, record.labels.method)) if info else None


def deviations_of(records: Iterable[Record], tasks: Tasks) -> tuple[Deviation, ...]:
    """The deviations that touch any of these records, each once, in the order of the task files."""
    found: dict[Deviation, None] = {}
    for record in records:
        info = tasks.get(record.task.name)
        for deviation in info.deviations if info else ():
            if deviation.touches_row(record.labels.encoder, record.labels.head):
                found[deviation] = None
    return tuple(found)
