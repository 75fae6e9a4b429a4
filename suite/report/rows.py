"""The rows of the leaderboard: published numbers, cells of ours, floors, and what stands apart from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from suite.records.metrics import PRIMARY_METRICS
from suite.records.published import STAGES, Published, Value
from suite.records.record import Record
from suite.report.cells import Cell, CellCosts, SectionKey, costs, results, section_keys
from suite.report.compare import HIGHER_IS_BETTER, Summary, Verdict, verdict
from suite.report.rerun import Partial, furthest
from suite.report.tasks import Tasks, deviations_of
from suite.spec.task import Deviation

FLOOR = "true floor (the source itself)"
# Shown beside the primary metric wherever our runs have them.
SECONDARY_METRICS = ("mode_match", "rank", "rank_press", "rank_press_float32")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Floor:
    """The best any model can do on a synthetic dataset: the true source's metric by split.

    ``entropy`` is the perplexity of its exact conditional distributions on test; ``rank`` that of its
    log-probabilities.
    """

    values: Mapping[str, float]
    entropy: float | None = None
    rank: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a published number, runs of ours, or both; or a floor.

    ``ours`` maps a split to the primary metric over seeds, ``secondary`` a metric to its summary on ``split``, the
    split that is compared. ``delta`` is ours minus the published value, or minus the floor where there is one.
    ``partial`` says how far a run got where none fills the cell; ``deviations`` are those of the cell, or of that run.
    """

    method: str
    split: str
    published: Published | None = None
    cell: Cell | None = None
    floor: Floor | None = None
    ours: Mapping[str, Summary] | None = None
    secondary: Mapping[str, Summary] | None = None
    costs: CellCosts | None = None
    verdict: Verdict | None = None
    delta: float | None = None
    partial: Partial | None = None
    deviations: tuple[Deviation, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What tells the row from its namesakes, and seeds that are missing from the mean."""
        if self.cell is None:
            return ()
        counts: dict[str, int] = defaultdict(int)
        for record in self.cell.unfinished:
            counts[record.status] += 1
        return (*self.cell.difference, *(f"{number} {status}" for status, number in sorted(counts.items())))


@dataclass(frozen=True, slots=True)
class ShortRow:
    """A smoke or short run: never compared, shown apart with a published number for orientation."""

    record: Record
    values: Mapping[str, float]
    published: Published | None
    deviations: tuple[Deviation, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that may be compared: one dataset, protocol and stage, scored by ``metric`` on ``splits``."""

    key: SectionKey
    metric: str
    splits: tuple[str, ...]
    rows: tuple[Row, ...]
    short: tuple[ShortRow, ...]

    @property
    def has_ours(self) -> bool:
        """Whether any run of ours stands in it, smoke and short ones included."""
        return bool(self.short) or any(row.cell for row in self.rows)

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Those of its rows, each once; a row's footnote is the place in here, from 1."""
        everything: list[Row | ShortRow] = [*self.rows, *self.short]
        return tuple(dict.fromkeys(deviation for row in everything for deviation in row.deviations))

    @property
    def has_floor(self) -> bool:
        """Whether differences are taken from the floor, not from a published number."""
        return any(row.floor for row in self.rows)


@dataclass(frozen=True, slots=True)
class Sources:
    """What rows are made of: cells, finished smoke and short runs, unfinished runs, published numbers, task files."""

    cells: Sequence[Cell]
    short: Sequence[Record]
    unfinished: Sequence[Record]
    published: Sequence[Published]
    tasks: Tasks

    def partial(self, key: SectionKey, number: Published) -> Partial | None:
        """The furthest of the shortened and unfinished runs that answer a number and whose stages include its own."""
        return furthest(
            (
                record
                for record in (*self.short, *self.unfinished)
                if (record.labels.dataset, record.task.protocol) == key[:2]
                and number.answered_by(record.task.name, record.labels.method)
                and key.stage in {stage["name"] for stage in record.spec.get("stages", ())}
            ),
            self.tasks,
        )


def build_sections(sources: Sources, scored: Sequence[Published]) -> list[Section]:
    """Every section that a cell, a short run or a number of ``scored`` belongs to, in a stable order."""
    cells, short, published = sources.cells, sources.short, scored
    by_cell = _grouped(cells, lambda cell: [cell.key])
    by_short = _grouped(short, section_keys)
    by_number = _grouped(published, lambda number: [SectionKey(number.dataset, number.protocol, number.stage)])
    keys = sorted(by_cell.keys() | by_short.keys() | by_number.keys(), key=_section_order)
    return [_section(key, by_cell[key], by_short[key], by_number[key], sources) for key in keys]


def _grouped(items: Iterable[T], keys: Callable[[T], Iterable[SectionKey]]) -> defaultdict[SectionKey, list[T]]:
    groups: defaultdict[SectionKey, list[T]] = defaultdict(list)
    for item in items:
        for key in keys(item):
            groups[key].append(item)
    return groups


def _section_order(key: SectionKey) -> tuple[str, str, int, str]:
    return key.dataset, key.protocol, STAGES.index(key.stage) if key.stage in STAGES else len(STAGES), key.stage


def _section(
    key: SectionKey,
    cells: Sequence[Cell],
    short: Sequence[Record],
    numbers: Sequence[Published],
    sources: Sources,
) -> Section:
    full = [record for cell in cells for record in cell.records]
    seen = {
        (split, name)
        for record in [*full, *short]
        for split, values in results(record)[key.stage].items()
        for name in values
    }
    seen |= {(split, name) for number in numbers for split, name in (metric.split(".", 1) for metric in number.values)}
    names = {name for _, name in seen}
    metric = next((name for name in PRIMARY_METRICS if name in names), PRIMARY_METRICS[0])
    splits = tuple(split for split in ("valid", "test") if (split, metric) in seen) or ("train",)
    # A smoke run may use less data, so its floor stands only where no full run tells one.
    floors = _floors(full or short, metric)
    rows = [Row(FLOOR, splits[-1], floor=floor) for floor in floors]
    for number in numbers:
        matching: list[Cell | None] = [cell for cell in cells if cell.answers(number)]
        rows += [_row(key, metric, splits, number, cell, sources) for cell in matching or [None]]
    own = [
        _row(key, metric, splits, None, cell, sources)
        for cell in cells
        if not any(cell.answers(number) for number in numbers)
    ]
    rows += sorted(own, key=_seconds if key.for_the_clock else lambda row: _score(row, metric))
    return Section(key, metric, splits, tuple(rows), tuple(_short(key, metric, run, sources) for run in short))


def _score(row: Row, metric: str) -> tuple[bool, float]:
    mean = (row.ours or {}).get(row.split, Summary(0)).mean
    return mean is None, (0.0 if mean is None else -mean if metric in HIGHER_IS_BETTER else mean)


def _seconds(row: Row) -> tuple[bool, float]:
    seconds = row.costs.seconds_per_epoch if row.costs else None
    return seconds is None, seconds or 0.0


def _row(
    key: SectionKey,
    metric: str,
    splits: tuple[str, ...],
    number: Published | None,
    cell: Cell | None,
    sources: Sources,
) -> Row:
    method = number.method if number else cell.method if cell else ""
    split = splits[-1]
    reference: Value | None = None
    if number is not None:
        # Compared on test where the source prints it, else on what it prints.
        split = next((name for name in reversed(splits) if f"{name}.{metric}" in number.values), split)
        reference = number.values.get(f"{split}.{metric}")
    ours = {name: cell.summary(name, metric) for name in splits} if cell else {}
    summary = ours.get(split, Summary(0))
    judged, partial = None, None
    if number is not None and reference is not None:
        judged = verdict(summary, reference, number.margin, metric in HIGHER_IS_BETTER)
    if number is not None and not summary.n:
        judged, partial = status(number, key, sources)
    floors = _floors(cell.records, metric) if cell else []
    base = reference.value if reference else floors[0].values.get(split) if floors else None
    return Row(
        method=method,
        split=split,
        published=number,
        cell=cell,
        ours=ours,
        secondary=_secondary(cell, split) if cell else {},
        costs=costs(cell.records, cell.key.stage) if cell else None,
        verdict=judged,
        delta=None if base is None or summary.mean is None else summary.mean - base,
        partial=partial,
        deviations=deviations_of(
            cell.records if cell else [partial.record] if partial else (), sources.tasks, key.stage
        ),
    )


def status(number: Published, key: SectionKey, sources: Sources) -> tuple[Verdict, Partial | None]:
    """What is said of a number that no run of ours answers."""
    partial = sources.partial(key, number)
    if partial is not None:
        return Verdict.PARTIAL, partial
    return (Verdict.UNAVAILABLE if number.unavailable else Verdict.NOT_RUN), None


def _secondary(cell: Cell, split: str) -> dict[str, Summary]:
    found = {metric: cell.summary(split, metric) for metric in SECONDARY_METRICS}
    return {metric: summary for metric, summary in found.items() if summary.n}


def _floors(records: Sequence[Record], metric: str) -> list[Floor]:
    floors: list[Floor] = []
    for record in records:
        facts = record.facts
        values = {split: facts[name] for split in ("valid", "test") if (name := f"{split}_floor_{metric}") in facts}
        floor = Floor(values, facts.get(f"test_floor_entropy_{metric}"), facts.get("log_prob_rank"))
        if values and floor not in floors:
            floors.append(floor)
    return floors


def _short(key: SectionKey, metric: str, record: Record, sources: Sources) -> ShortRow:
    values = {split: metrics[metric] for split, metrics in results(record)[key.stage].items() if metric in metrics}
    candidates = [
        number
        for number in sources.published
        if (number.dataset, number.stage) == (key.dataset, key.stage)
        and number.answered_by(record.task.name, record.labels.method)
        and f"test.{metric}" in number.values
    ]
    # The same protocol where there is one: sorted() is stable, so the order of papers decides the rest.
    candidates = sorted(candidates, key=lambda number: number.protocol != key.protocol)
    deviations = deviations_of([record], sources.tasks, key.stage)
    return ShortRow(record, values, candidates[0] if candidates else None, deviations)
