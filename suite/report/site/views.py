"""The page's tables as plain values: what a template puts where, with nothing left to decide but the markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from suite.records.published import Published
from suite.records.record import Record
from suite.records.store import file_name
from suite.report import formatting
from suite.report.cells import costs, results
from suite.report.columns import Column, columns, short_columns, short_key
from suite.report.leaderboard import Leaderboard
from suite.report.marks import Mark, marks
from suite.report.rerun import Partial, cell_rerun_command, rerun_command
from suite.report.rows import Row, Section, ShortRow
from suite.report.site.settings import Setting, Settings
from suite.report.table import SHORT_TITLE, heading, hoist
from suite.report.tasks import Tasks, is_stale
from suite.spec.task import Deviation

# A cell has a few seeds; what repeats one endlessly is told by its number.
MOST_RUNS = 100
# What a choice of the page is called that no paper, and no verdict, has.
NO_PAPER = NO_VERDICT = "none"


@dataclass(frozen=True, slots=True)
class RunView:
    """One run of a cell: ``file`` is its record's name in the records folder."""

    key: str
    file: str
    seed: int
    values: tuple[str, ...]
    seconds: str
    peak: str
    ended: str
    commit: str
    remarks: str


@dataclass(frozen=True, slots=True)
class RowView:
    """One row with what it unfolds to; ``cells`` go under the table's titles, after the method."""

    method: str
    notes: str
    cells: tuple[str, ...]
    head: str
    paper: str
    verdict: str
    floor: bool
    marks: tuple[Mark, ...]
    published: Published | None = None
    runs: tuple[RunView, ...] = ()
    more_runs: int = 0
    settings: tuple[Setting, ...] = ()
    deviations: int = 0
    rerun: str = ""
    partial: Partial | None = None


@dataclass(frozen=True, slots=True)
class TableView:
    """One table: titles of its columns after the method, those that hold numbers, and its rows."""

    id: str
    caption: str
    titles: tuple[str, ...]
    numeric: tuple[bool, ...]
    splits: tuple[str, ...]
    rows: tuple[RowView, ...]


@dataclass(frozen=True, slots=True)
class SectionView:
    """Rows that may be compared, and the smoke and short ones beside them; ``ours`` is whether any run is in it.

    ``shared`` is what all runs of the first table have in common: device, precision.
    """

    id: str
    title: str
    dataset: str
    ours: bool
    tables: tuple[TableView, ...]
    shared: str = ""

    @property
    def size(self) -> str:
        """``12 rows, 3 with runs of ours``; the floor is no row of its own."""
        rows = [row for table in self.tables for row in table.rows if not row.floor]
        ours = sum(bool(row.runs) for row in rows)
        said = "all with runs of ours" if ours == len(rows) else f"{ours or 'none'} with runs of ours"
        return f"{len(rows):,} row{'s' * (len(rows) != 1)}, {said}"


@dataclass(frozen=True, slots=True)
class Glance:
    """One dataset in a line: where it starts, how many rows, how many of ours among them, how many by verdict."""

    dataset: str
    first: str
    rows: int
    ours: int
    verdicts: Mapping[str, int]


def section_views(board: Leaderboard, settings: Settings) -> list[SectionView]:
    """The sections in their order, the grid of the synthetic experiment (many small tables) last."""
    ordered = sorted(board.sections, key=lambda section: section.metric == "kl")
    return [_section(f"s{place}", section, board.tasks, settings) for place, section in enumerate(ordered, 1)]


def _section(place: str, section: Section, tasks: Tasks, settings: Settings) -> SectionView:
    title, shared, tables = heading(section), "", []
    if section.rows:
        # What every run of the table shares is said once, beside its title.
        common, kept = hoist(_kept(columns(section)))
        shared = " · ".join(common)
        rows = [_row(section, row, _cells(kept, at), tasks, settings) for at, row in enumerate(section.rows)]
        tables.append(_table(f"{place}t", title, kept, section, rows))
    if section.short:
        kept = _kept(short_columns(section))
        rows = [_short_row(section, row, _cells(kept, at), tasks, settings) for at, row in enumerate(section.short)]
        tables.append(_table(f"{place}u", f"{title}: {SHORT_TITLE}", kept, section, rows))
    return SectionView(place, title, section.key.dataset, section.has_ours, tuple(tables), shared)


def _kept(found: Sequence[Column]) -> list[Column]:
    """The page has its own first column, and the records in what a row unfolds to."""
    return [column for column in found[1:] if column.title != "record"]


def _cells(kept: Sequence[Column], at: int) -> tuple[str, ...]:
    return tuple(column.cells[at] for column in kept)


def _table(place: str, caption: str, kept: Sequence[Column], section: Section, rows: Iterable[RowView]) -> TableView:
    titles = tuple(column.title for column in kept)
    return TableView(place, caption, titles, tuple(column.right for column in kept), section.splits, tuple(rows))


def _row(section: Section, row: Row, cells: tuple[str, ...], tasks: Tasks, settings: Settings) -> RowView:
    number, cell = row.published, row.cell
    records = cell.records if cell else ()
    return RowView(
        method=row.method,
        notes="; ".join(row.notes),
        cells=cells,
        head=cell.head if cell else number.head if number else "",
        paper=number.paper.key if number else NO_PAPER,
        verdict=row.verdict or NO_VERDICT,
        floor=row.floor is not None,
        marks=tuple(marks(row, tasks)),
        published=number,
        runs=tuple(_run(section, record, tasks) for record in records[:MOST_RUNS]),
        more_runs=max(0, len(records) - MOST_RUNS),
        settings=_settings(records, row.deviations, settings),
        deviations=len(row.deviations),
        rerun=cell_rerun_command(records) if records else "",
        partial=row.partial,
    )


def _short_row(section: Section, row: ShortRow, cells: tuple[str, ...], tasks: Tasks, settings: Settings) -> RowView:
    record = row.record
    return RowView(
        method=record.labels.method,
        notes=f"seed {record.seed}",
        cells=cells,
        head=record.labels.head,
        paper=row.published.paper.key if row.published else NO_PAPER,
        verdict=NO_VERDICT,
        floor=False,
        marks=tuple(marks(row, tasks)),
        runs=(_run(section, record, tasks),),
        settings=_settings([record], row.deviations, settings),
        deviations=len(row.deviations),
        rerun=rerun_command(record),
    )


def _settings(records: Sequence[Record], deviations: Sequence[Deviation], settings: Settings) -> tuple[Setting, ...]:
    """Deviations, then blocks of all runs, each once: the seeds of a cell differ in their environment at most."""
    blocks = [settings.deviation(deviation) for deviation in deviations]
    blocks += [block for record in records for block in settings.of(record)]
    return tuple(dict.fromkeys(blocks))


def _run(section: Section, record: Record, tasks: Tasks) -> RunView:
    scores = results(record).get(section.key.stage, {})
    took = costs([record])
    return RunView(
        key=short_key(record),
        file=file_name(record),
        seed=record.seed,
        values=tuple(
            formatting.metric(scores[split][section.metric], section.metric)
            if section.metric in scores.get(split, {})
            else formatting.DASH
            for split in section.splits
        ),
        seconds=formatting.DASH if took.seconds_per_epoch is None else formatting.cost(took.seconds_per_epoch),
        peak=formatting.DASH if took.peak_mib is None else f"{formatting.cost(took.peak_mib)} ({took.peak_source})",
        ended=record.provenance.ended[:10],
        commit=(record.provenance.commit or "unknown")[:10],
        remarks="; ".join(_remarks(record, tasks)),
    )


def _remarks(record: Record, tasks: Tasks) -> Iterator[str]:
    if is_stale(record, tasks):
        yield "stale"
    if record.provenance.dirty:
        yield "made with changes that were not committed"
    if record.costs and record.costs.packed:
        yield "packed"
    elif record.costs and record.costs.exclusive is False:
        yield "shared the machine: costs do not count"
    elif record.costs and record.costs.throttled:
        yield "slowed down by heat or power: costs do not count"


def glances(sections: Sequence[SectionView]) -> list[Glance]:
    """One line a dataset, in the order of the page."""
    found = []
    for dataset in dict.fromkeys(section.dataset for section in sections):
        here = [section for section in sections if section.dataset == dataset]
        rows = [row for section in here for table in section.tables for row in table.rows if not row.floor]
        counts = Counter(row.verdict for row in rows if row.verdict != NO_VERDICT)
        found.append(Glance(dataset, here[0].id, len(rows), sum(bool(row.runs) for row in rows), counts))
    return found
