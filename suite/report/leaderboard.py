"""The leaderboard: a pure function of records and published numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from suite.records.metrics import PRIMARY_METRICS
from suite.records.published import STAGES, Published, Value
from suite.records.record import Record
from suite.report.cells import Cell, CellCosts, SectionKey, costs, group, results, section_keys
from suite.report.compare import HIGHER_IS_BETTER, Summary, Verdict, verdict

FLOOR = "true floor (the source itself)"
# Shown beside the primary metric wherever our runs have them.
SECONDARY_METRICS = ("mode_match", "rank")
Show = Literal["ours", "datasets", "all"]
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
    def has_floor(self) -> bool:
        """Whether differences are taken from the floor, not from a published number."""
        return any(row.floor for row in self.rows)


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Sections in a stable order, and what fills no cell of them.

    ``other`` are published numbers with no metric a section compares by (ranks, gains, slow-downs); ``unfinished`` are
    failed, diverged and interrupted runs; ``retired`` are runs of a task version that is no longer current.
    """

    sections: tuple[Section, ...]
    other: tuple[Published, ...] = ()
    unfinished: tuple[Record, ...] = ()
    retired: tuple[Record, ...] = ()


def build(
    records: Iterable[Record],
    published: Sequence[Published],
    *,
    current_versions: Mapping[str, int] | None = None,
    datasets: Sequence[str] | None = None,
    show: Show = "datasets",
) -> Leaderboard:
    """Records and published numbers side by side.

    Only finished full runs of a task's current version fill a cell. ``current_versions`` maps a task to its version;
    a task it does not name is taken as it is. ``datasets`` keeps only those; ``show`` keeps sections with a run of ours
    ("ours"), of datasets with one ("datasets"), or all.
    """
    wanted = None if datasets is None else frozenset(datasets)
    # A stable order whatever the order of files: identical inputs give identical text.
    mine = sorted(
        (record for record in records if wanted is None or record.labels.dataset in wanted),
        key=lambda record: (record.name, record.run_key),
    )
    current = [record for record in mine if _is_current(record, current_versions)]
    finished = [record for record in current if record.status == "finished"]
    unfinished = [record for record in current if record.status != "finished"]
    full = [record for record in finished if record.scope == "full"]
    cells = group(full, [record for record in unfinished if record.scope == "full"])
    present = {record.labels.dataset for record in mine}
    theirs = merge_tables(
        number
        for number in published
        if (wanted is None or number.dataset in wanted) and (show == "all" or number.dataset in present)
    )
    scored = [number for number in theirs if _metric_of(number)]
    sections = _sections(cells, [record for record in finished if record.scope != "full"], scored)
    return Leaderboard(
        sections=tuple(section for section in sections if show != "ours" or section.has_ours),
        other=tuple(number for number in theirs if _metric_of(number) is None) if show == "all" else (),
        unfinished=tuple(unfinished),
        retired=tuple(record for record in mine if not _is_current(record, current_versions)),
    )


def _is_current(record: Record, versions: Mapping[str, int] | None) -> bool:
    return versions is None or versions.get(record.task.name, record.task.version) == record.task.version


def _metric_of(number: Published) -> str | None:
    names = {key.split(".", 1)[1] for key in number.values}
    return next((metric for metric in PRIMARY_METRICS if metric in names), None)


def merge_tables(numbers: Iterable[Published]) -> list[Published]:
    """One entry for what a source prints of one model in several tables.

    Two tables speak of one model when they repeat a value and contradict each other in none.
    """
    merged: list[Published] = []
    places: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for number in numbers:
        identity = (number.paper.key, number.dataset, number.method, number.protocol, number.stage, number.framework)
        # A README or a quotation is another source than the paper's own tables.
        source = number.table if not number.table.lstrip("S").isdigit() else ""
        spots = places[*identity, number.reported_by, source]
        for spot in spots:
            known = merged[spot]
            common = known.values.keys() & number.values.keys()
            if common and all(known.values[name] == number.values[name] for name in common):
                merged[spot] = replace(
                    known,
                    table=f"{known.table}, {number.table}",
                    values={**known.values, **number.values},
                    parameters=known.parameters or number.parameters,
                )
                break
        else:
            spots.append(len(merged))
            merged.append(number)
    return merged


def _sections(cells: Sequence[Cell], short: Sequence[Record], published: Sequence[Published]) -> list[Section]:
    by_cell = _grouped(cells, lambda cell: [cell.key])
    by_short = _grouped(short, section_keys)
    by_number = _grouped(published, lambda number: [SectionKey(number.dataset, number.protocol, number.stage)])
    keys = sorted(by_cell.keys() | by_short.keys() | by_number.keys(), key=_section_order)
    return [_section(key, by_cell[key], by_short[key], by_number[key], published) for key in keys]


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
    published: Sequence[Published],
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
        matching: list[Cell | None] = [cell for cell in cells if cell.method == number.method]
        rows += [_row(number.method, metric, splits, number, cell) for cell in matching or [None]]
    answered = {number.method for number in numbers}
    own = [_row(cell.method, metric, splits, None, cell) for cell in cells if cell.method not in answered]
    rows += sorted(own, key=lambda row: _score(row, metric))
    return Section(key, metric, splits, tuple(rows), tuple(_short(key, metric, run, published) for run in short))


def _score(row: Row, metric: str) -> tuple[bool, float]:
    mean = (row.ours or {}).get(row.split, Summary(0)).mean
    return mean is None, (0.0 if mean is None else -mean if metric in HIGHER_IS_BETTER else mean)


def _row(method: str, metric: str, splits: tuple[str, ...], number: Published | None, cell: Cell | None) -> Row:
    split = splits[-1]
    reference: Value | None = None
    if number is not None:
        # Compared on test where the source prints it, else on what it prints.
        split = next((name for name in reversed(splits) if f"{name}.{metric}" in number.values), split)
        reference = number.values.get(f"{split}.{metric}")
    ours = {name: cell.summary(name, metric) for name in splits} if cell else {}
    summary = ours.get(split, Summary(0))
    judged = None
    if number is not None and reference is not None:
        judged = verdict(summary, reference, number.margin, metric in HIGHER_IS_BETTER)
    floors = _floors(cell.records, metric) if cell else []
    base = reference.value if reference else floors[0].values.get(split) if floors else None
    return Row(
        method=method,
        split=split,
        published=number,
        cell=cell,
        ours=ours,
        secondary=_secondary(cell, split) if cell else {},
        costs=costs(cell.records) if cell else None,
        verdict=judged,
        delta=None if base is None or summary.mean is None else summary.mean - base,
    )


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


def _short(key: SectionKey, metric: str, record: Record, published: Sequence[Published]) -> ShortRow:
    values = {split: metrics[metric] for split, metrics in results(record)[key.stage].items() if metric in metrics}
    candidates = [
        number
        for number in published
        if (number.dataset, number.method, number.stage) == (key.dataset, record.labels.method, key.stage)
        and f"test.{metric}" in number.values
    ]
    # The same protocol where there is one: sorted() is stable, so the order of papers decides the rest.
    candidates = sorted(candidates, key=lambda number: number.protocol != key.protocol)
    return ShortRow(record, values, candidates[0] if candidates else None)
