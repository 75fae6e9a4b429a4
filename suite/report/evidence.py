"""What a claim is judged by: one finding a comparison, and everything that a rule may look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from suite.records.record import Record
from suite.report.cells import Cell, SectionKey
from suite.report.grouping import group, origin
from suite.report.pairing import Apart, place
from suite.report.tasks import Tasks, is_current


class Outcome(StrEnum):
    """What one finding says of the claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "undecided"
    ASIDE = "not counted"

    @property
    def decides(self) -> bool:
        """Whether it speaks for the claim or against it."""
        return self in (Outcome.HOLDS, Outcome.FAILS)


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison: where it was made, its numbers, what it says, and the records behind it.

    ``key`` is the section of the cells compared; a benchmark has none.
    """

    place: str
    text: str
    outcome: Outcome
    records: tuple[Record, ...] = ()
    why: str = ""
    key: SectionKey | None = None

    @property
    def dataset(self) -> str:
        """The label of what it was found on."""
        return self.key.dataset if self.key else self.place.split(" · ")[0]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the rules may look at: cells of full runs, cells of shortened ones too, benchmark rows.

    What does not depend on how long a model was trained (the bound on a rank, the cost of an epoch) may be read off a
    shortened run; perplexities may not. A rank is, where only shortened runs took it: :attr:`longest`.
    """

    cells: Sequence[Cell]
    with_short: Sequence[Cell]
    benchmarks: Sequence[Mapping[str, Any]] = ()
    apart: Apart = field(default_factory=Apart)

    @classmethod
    def of(
        cls, records: Iterable[Record], tasks: Tasks | None = None, benchmarks: Sequence[Mapping[str, Any]] = ()
    ) -> Evidence:
        """Finished runs of current task versions; smoke runs never count."""
        finished = [record for record in records if record.status == "finished" and is_current(record, tasks or {})]
        full = [record for record in finished if record.scope == "full"]
        long = [record for record in finished if record.scope != "smoke"]
        apart = Apart()
        return cls(group(full, flat=apart.flat), group(long, flat=apart.flat), benchmarks, apart)

    @property
    def longest(self) -> list[Cell]:
        """The cells of full runs and, of methods that have none in a section, those of shortened ones."""
        full = {(cell.key, cell.method) for cell in self.cells}
        short = (cell for cell in self.with_short if cell.records[0].scope != "full")
        return [*self.cells, *(cell for cell in short if (cell.key, cell.method) not in full)]


def about(cell: Cell, text: str, outcome: Outcome, records: Sequence[Record] = (), why: str = "") -> Finding:
    """A finding at a cell's place; its records are the cell's, and ``records`` of what it was compared with."""
    return Finding(place(cell), text, outcome, (*cell.records, *records), why, cell.key)


def distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of one rule, in order, without those that repeat others.

    Two tasks may train alike and differ in their names, versions or what follows the training: their runs of one seed
    are the same run twice. Of comparisons between the same specs that share a seed the one with most runs stays.
    """
    found = list(findings)
    known: dict[tuple[str, str], str] = {}
    alike: dict[tuple[str, frozenset[str]], list[int]] = defaultdict(list)
    runs = [
        frozenset((_origin(record, one.key.stage, known), record.seed) for record in one.records)
        if one.key
        else frozenset()
        for one in found
    ]
    for index, one in enumerate(found):
        stage = one.key.stage if one.key else one.place
        alike[stage, frozenset(spec for spec, _ in runs[index]) or frozenset({str(index)})].append(index)
    kept: list[int] = []
    for same in alike.values():
        seen: set[tuple[str, int]] = set()
        for index in sorted(same, key=lambda index: (-len(runs[index]), index)):
            if seen.isdisjoint(runs[index]):
                seen |= runs[index]
                kept.append(index)
    return [found[index] for index in sorted(kept)]


def _origin(record: Record, stage: str, known: dict[tuple[str, str], str]) -> str:
    if (record.run_key, stage) not in known:
        known[record.run_key, stage] = origin(record, stage)
    return known[record.run_key, stage]
