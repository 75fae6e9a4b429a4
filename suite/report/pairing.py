"""Cells set side by side: which of them belong together, and what is said of the difference."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import TRAINING, Cell, CellCosts, costs, measured
from suite.report.columns import budget
from suite.report.compare import Summary
from suite.report.grouping import flattened
from suite.spec.run_spec import canonical_json

SPLITS = ("test", "valid")
ONE_SEED = "fewer than two seeds a side give no interval"
Share = Literal["dataset", "encoder", "encoder-label", "encoder-name", "precision", "batch"]


class Apart:
    """Specs taken apart and compared, each once: ``flat`` by dotted keys, by run key; ``likest`` by :func:`nearest`."""

    def __init__(self) -> None:
        self.flat: dict[str, Mapping[str, str]] = {}
        self.likest: dict[tuple[str, ...], int] = {}
        self._items: dict[str, AbstractSet[tuple[str, str]]] = {}

    def distance(self, cell: Cell, other: Cell) -> int:
        """In how many keys two specs differ."""
        keys = (flattened(one.records[0], self.flat).keys() for one in (cell, other))
        equal = self._of(cell.records[0]) & self._of(other.records[0])
        return len(next(keys) | next(keys)) - len(equal)

    def _of(self, record: Record) -> AbstractSet[tuple[str, str]]:
        if record.run_key not in self._items:
            self._items[record.run_key] = frozenset(flattened(record, self.flat).items())
        return self._items[record.run_key]


def pairs(
    cells: Sequence[Cell], heads: Sequence[str], than: str, same: Sequence[Share], apart: Apart | None = None
) -> Iterator[tuple[Cell, Cell]]:
    """Each cell of ``heads`` with the cell of ``than`` in its section that is most like it and shares what it must.

    ``apart`` keeps what it took to find out.
    """
    apart = apart or Apart()
    labels = {cell.head for cell in cells}
    ours, theirs = ({label for label in labels if matches(label, globs)} for globs in (heads, (than,)))
    partners: dict[tuple[Any, ...], list[Cell]] = defaultdict(list)
    # By what they must share, for among thousands of cells most have a handful of partners.
    for cell in cells:
        if cell.head in theirs:
            partners[_shared(cell, same)].append(cell)
    for cell in cells:
        if cell.head not in ours:
            continue
        found = [other for other in partners.get(_shared(cell, same), ()) if other is not cell]
        if found:
            yield cell, nearest(cell, found, apart)


def nearest(cell: Cell, others: Sequence[Cell], apart: Apart) -> Cell:
    """The one of several cells whose spec is most like a cell's."""
    if len(others) == 1:
        # The comparison of whole specs is what takes time, and most cells have one partner.
        return others[0]
    names = tuple(one.records[0].run_key for one in (cell, *others))
    if names not in apart.likest:
        places = range(len(others))
        apart.likest[names] = min(places, key=lambda i: (apart.distance(cell, others[i]), names[i + 1]))
    return others[apart.likest[names]]


def alike(cell: Cell, other: Cell, same: Sequence[Share]) -> bool:
    """Whether two cells stand in one section and share what they must."""
    return _shared(cell, same) == _shared(other, same)


_SHARED: Mapping[Share, Callable[[Cell], str]] = {
    "dataset": lambda cell: canonical_json(cell.records[0].spec["dataset"]),
    "encoder": lambda cell: canonical_json(cell.records[0].spec["encoder"]),
    "encoder-label": lambda cell: cell.encoder,
    "encoder-name": lambda cell: str(cell.records[0].spec["encoder"]["name"]),
    "precision": lambda cell: cell.precision,
    "batch": lambda cell: canonical_json(cell.records[0].spec["recipe"].get("batch_size")),
}


def _shared(cell: Cell, same: Sequence[Share]) -> tuple[Any, ...]:
    return (cell.key, *(_SHARED[what](cell) for what in same))


def cost_pair(ours: Sequence[Record], theirs: Sequence[Record]) -> tuple[CellCosts, CellCosts] | None:
    """Costs that may be set against each other: of runs of one version of the code, on one device; the latest such.

    None where there are none. A faster training step is no property of a head, and a run whose only timed epoch is its
    first has timed its warm-up.
    """
    for mine, base in _of_one_version(ours, theirs):
        found = costs(mine, TRAINING), costs(base, TRAINING)
        if found[0].device == found[1].device and found[0].seconds_per_epoch and found[1].seconds_per_epoch:
            return found
    return None


class TimeRatio(NamedTuple):
    """How many times as long one head takes as another, the two numbers it is made of, and their unit."""

    ratio: float
    mine: float
    base: float
    unit: str
    device: str
    sure: bool


def time_ratio(ours: Sequence[Record], theirs: Sequence[Record]) -> TimeRatio | None:
    """Seconds an epoch over seconds an epoch; of runs that end at a number of steps, tokens a second turned round.

    None where no costs may be set against each other (:func:`cost_pair`).
    """
    both = cost_pair(ours, theirs)
    if both is not None:
        mine, base = both
        numbers = mine.seconds_per_epoch or 0.0, base.seconds_per_epoch or 0.0
        sure = mine.exclusive and base.exclusive
        return TimeRatio(numbers[0] / numbers[1], *numbers, "s/epoch", mine.device or "", sure)
    for one, two in _of_one_version(ours, theirs):
        fast, slow = _speed(two), _speed(one)
        if fast and slow and fast[1] == slow[1]:
            sure = fast[2] and slow[2]
            return TimeRatio(fast[0] / slow[0], slow[0], fast[0], "tokens/s", slow[1], sure)
    return None


def _speed(records: Sequence[Record]) -> tuple[float, str, bool] | None:
    """Median tokens a second, the device, and whether the runs were surely alone on it."""
    device, counted, sure = measured(records)
    speeds = [record.costs.tokens_per_second for record in counted if record.costs and record.costs.tokens_per_second]
    return (statistics.median(speeds), device, sure) if speeds and device else None


def _of_one_version(ours: Sequence[Record], theirs: Sequence[Record]) -> Iterator[tuple[list[Record], list[Record]]]:
    """The runs of both sides that timed more than their warm-up, by version of the code, the latest first."""
    mine, base = (_by_version(record for record in side if timed(record)) for side in (ours, theirs))
    shared = [(mine[version], base[version]) for version in mine.keys() & base.keys()]
    yield from sorted(shared, key=lambda both: max(r.provenance.ended for r in both[0]), reverse=True)


def timed(record: Record) -> bool:
    """Whether a run's time is evidence: of two timed epochs at least, or of many steps where no epoch was whole."""
    took = record.costs
    return took is not None and (took.seconds_per_epoch is None or took.epochs_timed > 1)


def _by_version(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.step_version is not None:
            found[record.step_version].append(record)
    return found


def fits(cell: Cell, other: Cell, bound: float | None) -> bool:
    """Whether a cell's model has at most ``bound`` times the parameters of the other's; True without a bound."""
    if bound is None:
        return True
    sizes = cell.parameters, other.parameters
    return sizes[0] is not None and sizes[1] is not None and sizes[0] <= bound * sizes[1]


def matches(label: str, globs: Sequence[str]) -> bool:
    """Whether a label is meant by any of some globs."""
    return any(fnmatchcase(label, glob) for glob in globs)


def values(cell: Cell, metric: str) -> list[float]:
    """The metric by seed, on test where there is one."""
    return next((found for split in SPLITS if (found := cell.values(split, metric))), [])


def undecided(found: Summary) -> str:
    """Why a difference of means decides nothing; empty where its interval lies on one side of zero."""
    if found.low is None or found.high is None:
        return ONE_SEED
    return "the interval of the difference holds zero" if found.low <= 0 <= found.high else ""


def place(cell: Cell) -> str:
    """``ptb · nt-asgd · train, 500 epochs``, and in brackets what sets the cell apart from its namesakes.

    Of a later stage no epochs are said: the budget is the train stage's.
    """
    short = cell.records[0].scope == "short"
    # What shortened it is said in words.
    parts = [said for said in cell.difference if not (short and said.startswith(("scope=", "recipe.budget.")))]
    apart = f" ({'; '.join(parts)})" if parts else ""
    allowed = budget(cell.records[0]) if short or cell.key.stage == TRAINING else formatting.DASH
    return " · ".join(cell.key) + apart + (f", {allowed}" if allowed != formatting.DASH else "")


def said(cell: Cell, other: Cell, metric: str, found: Summary) -> str:
    """Two methods, the difference of their means with its interval, and the number of seeds of each."""
    counts = f"n = {len(values(cell, metric))} and {len(values(other, metric))}"
    title = formatting.METRIC_TITLES.get(metric, metric.replace("_", " "))
    return f"{cell.method} against {other.method}: {title} {with_interval(found, metric)}, {counts}"


def with_interval(found: Summary, metric: str, sign: int = 1) -> str:
    """``-2.79 [-3.07, -2.51]``; ``sign`` -1 turns the difference round."""
    if found.mean is None:
        return formatting.DASH
    text = formatting.signed(sign * found.mean, metric)
    if found.low is None or found.high is None:
        return text
    ends = sorted((sign * found.low, sign * found.high))
    # A unit is said once, behind the interval.
    unit = formatting.UNITS.get(metric, "")
    low, high = (formatting.signed(end, metric).removesuffix(unit) for end in ends)
    return f"{text.removesuffix(unit)} [{low}, {high}]{unit}"


def output_dimension(spec: Mapping[str, Any]) -> int | None:
    """d, the size of the output embeddings, by a run's resolved spec; None where the encoder does not tell."""
    head, encoder = spec["head"], spec["encoder"]
    if head.get("dimension") is not None:
        return int(head["dimension"])
    if encoder.get("tied") and "embedding" in encoder:
        return int(encoder["embedding"])
    if encoder.get("hidden"):
        return int(encoder["hidden"][-1])
    size = encoder.get("width", encoder.get("dimension"))
    return None if size is None else int(size)
