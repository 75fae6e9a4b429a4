"""What the report knows of the task files: current versions, full budgets, deviations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from suite.records.record import Record
from suite.spec.plan import expand, shorten
from suite.spec.run_spec import RunSpec
from suite.spec.task import Deviation, Task


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task as its file stands now.

    ``budgets`` maps dataset and ``encoder/head`` to the epochs of a full run; ``specs`` are the runs that the file
    gives, None where nobody has looked.
    """

    version: int
    budgets: Mapping[tuple[str, str], int] = field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()
    specs: tuple[RunSpec, ...] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, task: Task) -> TaskInfo:
        """The facts of a checked task file."""
        budgets = {}
        for cell in task.cells:
            dataset, encoder, head = cell.labels[:3]
            budgets[dataset, f"{encoder}/{head}"] = int(cell.recipe["budget"]["epochs"])
        return cls(task.version, budgets, task.deviations, () if task.abstract else tuple(expand(task)))

    def gives(self, record: Record) -> bool:
        """Whether the file gives this very run today, by run key; True where its runs are not known."""
        if self.specs is None:
            return True
        labels, seed = record.labels.model_dump(), record.seed
        namesakes = [spec for spec in self.specs if spec.seed == seed and asdict(spec.labels) == labels]
        # Labels are no part of a run: what is called otherwise now may still be the same.
        return _among(record, namesakes) or _among(record, self.specs)


def _among(record: Record, specs: Sequence[RunSpec]) -> bool:
    budget = record.spec.get("recipe", {}).get("budget", {})
    same = specs if record.scope == "full" else shorten(specs, max(1, int(budget.get("epochs", 1))))
    return any(spec.run_key == record.run_key for spec in same)


Tasks = Mapping[str, TaskInfo]


def is_current(record: Record, tasks: Tasks) -> bool:
    """Whether the record is of its task's current version; a task that is not known is taken as it is."""
    info = tasks.get(record.task.name)
    return info is None or info.version == record.task.version


def is_stale(record: Record, tasks: Tasks) -> bool:
    """Whether the record's task file has changed since, so that it gives another run; a task not known is not stale."""
    info = tasks.get(record.task.name)
    return info is not None and not info.gives(record)


def full_epochs(record: Record, tasks: Tasks) -> int | None:
    """Epochs that the whole run has: the recipe's own for a full run, the task file's for a shortened one."""
    if record.scope == "full":
        epochs = record.spec.get("recipe", {}).get("budget", {}).get("epochs")
        return None if epochs is None else int(epochs)
    info = tasks.get(record.task.name)
    return info.budgets.get((record.labels.dataset, record.labels.method)) if info else None


def deviations_of(records: Iterable[Record], tasks: Tasks, stage: str | None = None) -> tuple[Deviation, ...]:
    """The deviations that touch any of these records in a stage, or in any, each once, in the task files' order."""
    found: dict[Deviation, None] = {}
    for record in records:
        info = tasks.get(record.task.name)
        for deviation in info.deviations if info else ():
            if deviation.touches_row(record.labels.encoder, record.labels.head, stage):
                found[deviation] = None
    return tuple(found)
