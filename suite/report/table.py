"""The leaderboard as text: for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tabulate import tabulate

from suite.records.published import DEFAULT_MARGIN, Published
from suite.records.record import Record
from suite.report import formatting
from suite.report.cells import precision
from suite.report.compare import Summary
from suite.report.leaderboard import Leaderboard, Row, Section, ShortRow

CAPTION = (
    "Published numbers beside ours, mean ± standard deviation (number of seeds). The verdict sets the 95 % interval of "
    f"our mean against the published value ± {100 * DEFAULT_MARGIN:g} %, or the margin that the number carries: "
    "reproduced (within), better or worse (entirely beyond), inconclusive (neither), single run, not run. Seconds and "
    "memory come from runs that had the machine alone; ~ where no run could tell. * as reported by others."
)
_SHORT_TITLE = "Smoke and short runs (not comparable)"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its cells in order; ``rank`` says how early it goes when a terminal is too narrow (0 never)."""

    title: str
    cells: tuple[str, ...]
    right: bool = False
    rank: int = 0

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

    add("method", lambda row: f"{row.method} ({'; '.join(row.notes)})" if row.notes else row.method)
    for split in section.splits:
        add(f"published {split}", partial(_published, key=f"{split}.{name}"), right=True, rank=rank_of(split, 11))
    add("source", lambda row: formatting.source(row.published), rank=13)
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
    add("parameters", _parameters, right=True, rank=6)
    add("s/epoch", _seconds, right=True, rank=10)
    add("peak MiB", _peak, right=True, rank=9)
    add("peak of", lambda row: (row.costs.peak_source if row.costs else "") or formatting.DASH, rank=3)
    add("precision", lambda row: (row.cell.precision if row.cell else "") or formatting.DASH, rank=2)
    add("device", _device, rank=4)
    add("record", _records, rank=1)
    return found


def short_columns(section: Section) -> list[Column]:
    """The columns of the smoke and short runs of a section."""
    name = section.metric

    def column(title: str, cell: Callable[[ShortRow], str], right: bool = False, rank: int = 0) -> Column:
        return Column(title, tuple(formatting.clean(cell(row)) for row in section.short), right, rank)

    found = [column("method", lambda row: f"{row.record.labels.method} seed {row.record.seed}")]
    for split in section.splits:
        found.append(column(f"ours {split}", partial(_short_value, split=split, name=name), right=True))
    found += [
        column("scope", lambda row: row.record.scope),
        column("budget", lambda row: budget(row.record)),
        column("published test", lambda row: _short_published(row, name), right=True),
        column("source", lambda row: formatting.source(row.published), rank=2),
        column("seconds", lambda row: _total_seconds(row.record), right=True),
        column("s/epoch", lambda row: _short_cost(row, "seconds_per_epoch"), right=True),
        column("GPU peak MiB", lambda row: _short_cost(row, "gpu_peak_mib"), right=True),
        column("precision", lambda row: precision(row.record) or formatting.DASH, rank=1),
        column(
            "device", lambda row: row.record.environment.device if row.record.environment else formatting.DASH, rank=3
        ),
    ]
    return [entry for entry in found if not entry.empty]


def terminal(board: Leaderboard, width: int = 120) -> str:
    """The leaderboard for a terminal of ``width`` characters.

    What every run of a section shares is said once in its heading; where a table is still too wide, its least needed
    columns are left to the Markdown and CSV forms.
    """
    parts = []
    for section in board.sections:
        blocks = []
        if section.rows:
            blocks.append((_heading(section), columns(section)))
        if section.short:
            blocks.append((f"{_heading(section)}: {_SHORT_TITLE}", short_columns(section)))
        for heading, table in blocks:
            shared, rest = _hoist(table)
            parts.append(" · ".join([heading, *shared]) + "\n\n" + _render(_fit(rest, width), "simple"))
    for title, lines in _lists(board):
        parts.append("\n".join([title, *(f"  {line}" for line in lines)]))
    if not parts:
        return "No results yet.\n"
    return "\n\n".join([*parts, textwrap.fill(CAPTION, width)]) + "\n"


def markdown(board: Leaderboard) -> str:
    """The leaderboard as Markdown: every column, published numbers that no section compares, and what failed."""
    parts = [_escape(CAPTION)]
    for section in board.sections:
        parts.append(f"### {_escape(_heading(section))}")
        if section.rows:
            parts.append(_render(columns(section), "pipe"))
        if section.short:
            parts += [f"**{_SHORT_TITLE}**", _render(short_columns(section), "pipe")]
    if board.other:
        parts += ["### Other published numbers (not compared)", _render(_other(board.other), "pipe")]
    for title, lines in _lists(board):
        parts += [f"### {title}", "\n".join(f"- {_escape(line)}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def budget(record: Record) -> str:
    """``2 epochs, 500 steps``: what the recipe allowed."""
    said = record.spec.get("recipe", {}).get("budget", {})
    counts = [(said.get("epochs"), "epoch"), (said.get("steps"), "step")]
    return ", ".join(f"{count:,} {unit}{'s' * (count != 1)}" for count, unit in counts if count) or formatting.DASH


def _heading(section: Section) -> str:
    title = formatting.METRIC_TITLES.get(section.metric, section.metric)
    protocol, stage = (
        f"{what} unstated" if said == "unstated" else said
        for what, said in (("protocol", section.key.protocol), ("stage", section.key.stage))
    )
    return formatting.clean(f"{section.key.dataset} · {protocol} · {stage} ({title})")


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


def _seconds(row: Row) -> str:
    if row.costs is None or row.costs.seconds_per_epoch is None:
        return formatting.DASH
    return _unsure(row) + formatting.cost(row.costs.seconds_per_epoch)


def _peak(row: Row) -> str:
    if row.costs is None or row.costs.peak_mib is None:
        return formatting.DASH
    return _unsure(row) + formatting.cost(row.costs.peak_mib)


def _device(row: Row) -> str:
    if row.costs is None or row.costs.device is None:
        return formatting.DASH
    return row.costs.device + (f" (and {row.costs.other_devices} more)" if row.costs.other_devices else "")


def _records(row: Row) -> str:
    if row.cell is None:
        return formatting.DASH
    more = len(row.cell.records) - 1
    return row.cell.records[0].run_key[:8] + (f" +{more}" if more else "")


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


def _other(published: Sequence[Published]) -> list[Column]:
    def column(title: str, cell: Callable[[Published], str]) -> Column:
        return Column(title, tuple(formatting.clean(cell(number)) for number in published))

    return [
        column("dataset", lambda number: number.dataset),
        column("method", lambda number: number.method),
        column("protocol", lambda number: number.protocol),
        column("stage", lambda number: number.stage),
        column("published", lambda number: "; ".join(f"{name} {_exact(number, name)}" for name in number.values)),
        column("source", formatting.source),
    ]


def _exact(number: Published, name: str) -> str:
    value = number.values[name]
    return f"{value.value:g}" + ("" if value.sd is None else f" ± {value.sd:g}")


def _lists(board: Leaderboard) -> list[tuple[str, list[str]]]:
    found = []
    if board.unfinished:
        found.append(("Runs that did not finish", [unfinished_line(record) for record in board.unfinished]))
    if board.retired:
        lines = [f"{record.name}: version {record.task.version} of the task" for record in board.retired]
        found.append(("Runs of retired task versions", [formatting.clean(line) for line in lines]))
    return found


def unfinished_line(record: Record) -> str:
    """``mos-ptb ptb awd-lstm/mos-15 seed 3 diverged: the loss is nan at step 120``."""
    scope = "" if record.scope == "full" else f" ({record.scope})"
    said = "was interrupted" if record.status == "interrupted" else record.status
    return formatting.clean(f"{record.name}{scope} {said}: {record.message or 'no reason was recorded'}")


def _hoist(table: list[Column]) -> tuple[list[str], list[Column]]:
    """Columns in which every run says the same are said in the heading instead."""
    shared, rest = [], []
    for column in table:
        said = set(column.cells) - {formatting.DASH}
        if column.title in ("precision", "device", "peak of") and len(said) == 1:
            shared.append(f"{column.title} {said.pop()}" if column.title == "peak of" else said.pop())
        else:
            rest.append(column)
    return shared, rest


def _fit(table: list[Column], width: int) -> list[Column]:
    while sum(column.width + 2 for column in table) - 2 > width:
        optional = [column.rank for column in table if column.rank]
        if not optional:
            break
        table = [column for column in table if column.rank != min(optional)]
    return table


def _render(table: list[Column], style: str) -> str:
    escape = _escape if style == "pipe" else str
    return tabulate(
        list(zip(*([escape(cell) for cell in column.cells] for column in table), strict=True)),
        headers=[column.title for column in table],
        tablefmt=style,
        colalign=["right" if column.right else "left" for column in table],
        disable_numparse=True,
    )


def _escape(text: str) -> str:
    """Text that Markdown shows as it is: no cell, tag, comment or emphasis of its own."""
    for character in "\\`*_[]|":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;")
