"""The columns of the leaderboard's tables: what each says of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import precision
from suite.report.compare import Summary
from suite.report.rows import Row, Section, ShortRow
from suite.spec.task import Deviation


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its cells in order; ``rank`` says how early it goes when a terminal is too narrow (0 never).

    ``markdown`` are its cells where Markdown shows more, links for one.
    """

    title: str
    cells: tuple[str, ...]
    right: bool = False
    rank: int = 0
    markdown: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        """Characters it takes."""
        return max(len(self.title), *(len(cell) for cell in self.cells))

    @property
    def empty(self) -> bool:
        """Whether no row has anything to say in it."""
        return all(cell == formatting.DASH for cell in self.cells)


def columns(section: Section) -> list[Column]:
    """The columns of a section's table; those with nothing in any row are left out."""
    name = section.metric
    found: list[Column] = []

    def rank_of(split: str, rank: int) -> int:
        return 0 if split == section.splits[-1] else rank

    def add(title: str, cell: Callable[[Row], str], right: bool = False, rank: int = 0) -> None:
        cells = tuple(formatting.clean(cell(row)) for row in section.rows)
        column = Column(title, cells, right, rank)
        if not column.empty:
            found.append(column)

    footnotes = section.deviations
    add("method", lambda row: _method(footnotes, row))
    for split in section.splits:
        add(f"published {split}", partial(_published, key=f"{split}.{name}"), right=True, rank=rank_of(split, 11))
    add("source", lambda row: formatting.source(row.published), rank=13)
    if not section.key.for_the_clock:
        for split in section.splits:
            add(f"ours {split}", partial(_ours, split=split, name=name), right=True, rank=rank_of(split, 12))
        compared = section.splits[-1]
        title = "above floor" if section.has_floor else f"Δ {compared}"
        add(title, lambda row: _delta(row, name, compared), right=True)
        add("95 % interval", lambda row: formatting.interval((row.ours or {}).get(row.split), name), right=True, rank=7)
    add("verdict", lambda row: row.verdict or formatting.DASH)
    add("mode match", lambda row: _secondary(row, "mode_match"), right=True)
    if any(row.secondary and "rank" in row.secondary for row in section.rows):
        add("published rank", lambda row: _published(row, f"{row.split}.rank", "rank"), right=True, rank=5)
        add("rank", lambda row: _secondary(row, "rank"), right=True, rank=8)
        add("rank (Press)", lambda row: _secondary(row, "rank_press"), right=True, rank=6)
        add("rank (Press, all float32)", lambda row: _secondary(row, "rank_press_float32"), right=True, rank=6)
    add("parameters", _parameters, right=True, rank=6)
    add("s/epoch", partial(_cost, name="seconds_per_epoch"), right=True, rank=10)
    add("J/epoch", partial(_cost, name="joules_per_epoch"), right=True, rank=9)
    add("peak MiB", partial(_cost, name="peak_mib"), right=True, rank=9)
    add("peak of", lambda row: (row.costs.peak_source if row.costs else "") or formatting.DASH, rank=3)
    add("precision", lambda row: (row.cell.precision if row.cell else "") or formatting.DASH, rank=2)
    add("device", _device, rank=4)
    add("record", _records, rank=1)
    if found[-1].title == "record":
        links = tuple(link_cell(row.cell.records if row.cell else ()) for row in section.rows)
        found[-1] = replace(found[-1], markdown=links)
    return found


def short_columns(section: Section) -> list[Column]:
    """The columns of the smoke and short runs of a section."""
    name = section.metric

    def column(title: str, cell: Callable[[ShortRow], str], right: bool = False, rank: int = 0) -> Column:
        return Column(title, tuple(formatting.clean(cell(row)) for row in section.short), right, rank)

    footnotes = section.deviations
    found = [column("method", lambda row: _short_method(footnotes, row))]
    for split in section.splits:
        found.append(column(f"ours {split}", partial(_short_value, split=split, name=name), right=True))
    found += [
        column("scope", lambda row: row.record.scope),
        column("budget", lambda row: budget(row.record)),
        column("published test", lambda row: _short_published(row, name), right=True),
        column("source", lambda row: formatting.source(row.published), rank=2),
        column("seconds", lambda row: _total_seconds(row.record), right=True),
        column("s/epoch", lambda row: _short_cost(row, "seconds_per_epoch"), right=True),
        column("J/epoch", lambda row: _short_cost(row, "joules_per_epoch"), right=True),
        column("GPU peak MiB", lambda row: _short_cost(row, "gpu_peak_mib"), right=True),
        column("precision", lambda row: precision(row.record) or formatting.DASH, rank=1),
        column(
            "device", lambda row: row.record.environment.device if row.record.environment else formatting.DASH, rank=3
        ),
    ]
    links = tuple(link_cell([row.record]) for row in section.short)
    found.append(Column("record", tuple(short_key(row.record) for row in section.short), rank=4, markdown=links))
    return [entry for entry in found if not entry.empty]


def short_key(record: Record) -> str:
    """The first digits of the run key: what ``suite show`` takes, and what a link to the record is called."""
    return record.run_key[:8]


def link_cell(records: Sequence[Record]) -> str:
    """Reference links to record files; :func:`suite.report.table.markdown` defines where they lead."""
    return " ".join(f"[{short_key(record)}]" for record in records) or formatting.DASH


def _method(footnotes: Sequence[Deviation], row: Row) -> str:
    notes = f" ({'; '.join(row.notes)})" if row.notes else ""
    return f"{row.method}{notes}{deviation_marks(footnotes, row.deviations)}"


def _short_method(footnotes: Sequence[Deviation], row: ShortRow) -> str:
    return f"{row.record.labels.method} seed {row.record.seed}{deviation_marks(footnotes, row.deviations)}"


def deviation_marks(footnotes: Sequence[Deviation], deviations: Sequence[Deviation]) -> str:
    """The footnotes' marks of some deviations: `` ¹ ³``."""
    places = sorted(footnotes.index(deviation) + 1 for deviation in deviations)
    return "".join(f" {formatting.superscript(place)}" for place in places)


def budget(record: Record) -> str:
    """``2 epochs, 500 steps``: what the recipe allowed."""
    said = record.spec.get("recipe", {}).get("budget", {})
    counts = [(said.get("epochs"), "epoch"), (said.get("steps"), "step")]
    return ", ".join(f"{count:,} {unit}{'s' * (count != 1)}" for count, unit in counts if count) or formatting.DASH


def _published(row: Row, key: str, name: str | None = None) -> str:
    value = row.published.values.get(key) if row.published else None
    return formatting.published_value(value, name or key.split(".", 1)[1])


def _ours(row: Row, split: str, name: str) -> str:
    if row.floor:
        return formatting.metric(row.floor.values[split], name) if split in row.floor.values else formatting.DASH
    return formatting.summary((row.ours or {}).get(split), name)


def _delta(row: Row, name: str, compared: str) -> str:
    if row.delta is None:
        return formatting.DASH
    return formatting.signed(row.delta, name) + (f" ({row.split})" if row.split != compared else "")


def _secondary(row: Row, name: str) -> str:
    if row.floor:
        return (
            formatting.metric(row.floor.rank, name)
            if name == "rank" and row.floor.rank is not None
            else formatting.DASH
        )
    return formatting.summary((row.secondary or {}).get(name, Summary(0)), name)


def _parameters(row: Row) -> str:
    if row.cell and row.cell.parameters is not None:
        return f"{row.cell.parameters:,}"
    return formatting.parameters(row.published.parameters if row.published else None)


def _unsure(row: Row) -> str:
    return "" if row.costs and row.costs.exclusive else "~"


def _cost(row: Row, name: str) -> str:
    value = getattr(row.costs, name, None)
    return formatting.DASH if value is None else _unsure(row) + formatting.cost(value)


def _device(row: Row) -> str:
    if row.costs is None or row.costs.device is None:
        return formatting.DASH
    return row.costs.device + (f" (and {row.costs.other_devices} more)" if row.costs.other_devices else "")


def _records(row: Row) -> str:
    return short_keys(row.cell.records if row.cell else ())


def short_keys(records: Sequence[Record]) -> str:
    """The first of some runs by its key, and how many more there are."""
    if not records:
        return formatting.DASH
    more = len(records) - 1
    return short_key(records[0]) + (f" +{more}" if more else "")


def _short_value(row: ShortRow, split: str, name: str) -> str:
    return formatting.metric(row.values[split], name) if split in row.values else formatting.DASH


def _short_published(row: ShortRow, name: str) -> str:
    return formatting.published_value(row.published.values.get(f"test.{name}") if row.published else None, name)


def _short_cost(row: ShortRow, name: str) -> str:
    value = getattr(row.record.costs, name, None)
    return formatting.DASH if value is None else formatting.cost(value)


def _total_seconds(record: Record) -> str:
    seconds = record.costs.seconds.get("total") if record.costs else None
    return formatting.DASH if seconds is None else formatting.cost(seconds)
