"""What a run of some cells would do, as a table: done and left, and how long the rest may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

from suite.progress import duration
from suite.report.estimate import Estimate
from suite.spec.run_spec import RunSpec

_HEADERS = ("task", "dataset", "method", "seed", "scope", "status", "estimate", "run key")
_MARKS = {
    "~": "by a run of other arithmetic or function, a packed one or a single epoch",
    "≤": "at most",
}


@dataclass(slots=True)
class Line:
    """Runs that differ in the seed alone: what one command gives again. ``spec`` is that of any of them."""

    spec: RunSpec
    seeds: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    estimates: list[Estimate | None] = field(default_factory=list)

    def add(self, spec: RunSpec, status: str, estimate: Estimate | None) -> None:
        """One more seed; the estimate of a run that is done does not count."""
        self.seeds.append(spec.seed)
        self.keys.append(spec.run_key)
        self.statuses.append(status)
        if status != "done":
            self.estimates.append(estimate)

    @property
    def cells(self) -> tuple[str | int, ...]:
        """Its row of the table."""
        spec, counts = self.spec, Counter(self.statuses)
        several = len(self.seeds) > 1
        status = ", ".join(f"{n} {said}" for said, n in counts.items()) if len(counts) > 1 else self.statuses[0]
        return (
            spec.task,
            spec.labels.dataset,
            spec.labels.method,
            _ranges(self.seeds),
            spec.scope,
            status,
            _estimated(self.estimates) if self.estimates else "",
            f"{len(self.keys)} runs" if several else self.keys[0][:12],
        )


def planned_text(lines: Sequence[Line]) -> str:
    """The table, and a line that sums up: cells, those done, the time of those left, apart where it is a bound."""
    rows = [line.cells for line in lines]
    # Seeds are names: 1-3 stands where 28 does.
    align = ("left", "left", "left", "right", "left", "left", "right", "left")
    table = tabulate(rows, headers=_HEADERS, colalign=align if rows else None, disable_numparse=True)
    return f"{table}\n\n{_summary(lines)}"


def _summary(lines: Sequence[Line]) -> str:
    count = sum(len(line.seeds) for line in lines)
    left = [estimate for line in lines for estimate in line.estimates]
    known = [estimate for estimate in left if estimate is not None]
    told, bounded = ([e.seconds for e in known if e.at_most is bound] for bound in (False, True))
    parts = [f"about {duration(sum(told))} for {len(told)}"] if told else []
    parts += [f"at most {duration(sum(bounded))} for {len(bounded)}"] if bounded else []
    parts += [f"{len(left) - len(known)} with no run to go by"] if len(known) < len(left) else []
    said = f"{count} cell{'s' * (count != 1)}, {count - len(left)} done, {len(left)} to run"
    said += (": " if parts else "") + ", ".join(parts)
    marks = {mark for estimate in known for mark in estimate.marks}
    return "\n".join([said, *(f"{mark} {meaning}" for mark, meaning in _MARKS.items() if mark in marks)])


def _estimated(estimates: Sequence[Estimate | None]) -> str:
    known = [estimate for estimate in estimates if estimate is not None]
    if len(known) < len(estimates):
        return "?"
    whole = Estimate(
        sum(estimate.seconds for estimate in known),
        rough=any(estimate.rough for estimate in known),
        at_most=any(estimate.at_most for estimate in known),
    )
    return whole.marks + duration(whole.seconds)


def _ranges(seeds: Sequence[int]) -> str:
    """``1-3, 28`` for 28, 1, 2, 3."""
    return ", ".join(f"{low}-{high}" if high > low else str(low) for low, high in _runs(sorted(seeds)))


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    low = high = None
    for number in numbers:
        if low is None or high is None:
            low = high = number
        elif number <= high + 1:
            high = number
        else:
            yield low, high
            low = high = number
    if low is not None and high is not None:
        yield low, high
