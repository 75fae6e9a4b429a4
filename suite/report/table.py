"""The leaderboard as text: for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from tabulate import tabulate

from suite.records.published import DEFAULT_MARGIN
from suite.records.record import Record
from suite.records.store import file_name
from suite.report import formatting
from suite.report.columns import Column, columns, deviation_marks, short_columns, short_key
from suite.report.leaderboard import Leaderboard
from suite.report.others import OTHERS_CAPTION, other_columns
from suite.report.rerun import Partial, partial_of
from suite.report.rows import Section
from suite.spec.task import Deviation

CAPTION = (
    "Published numbers beside ours, mean ± standard deviation (number of seeds). The verdict sets the 95 % interval of "
    f"our mean against the published value ± {100 * DEFAULT_MARGIN:g} %, or the margin that the number carries: "
    "reproduced (within), better or worse (entirely beyond), inconclusive (neither), single run, not run; partial: a "
    "run stopped short or was shortened, and fills no cell; data not available. `suite show RUN` prints a record and "
    "the command that runs it again. Seconds and memory come from runs that had the machine alone; ~ where no run "
    "could tell. Memory is the peak until the stage's end, or, later stages too, of the whole run, where no record "
    "knows it. * as reported by others."
)
SHORT_TITLE = "Smoke and short runs (not comparable)"


def terminal(board: Leaderboard, width: int = 120) -> str:
    """The leaderboard for a terminal of ``width`` characters.

    What every run of a section shares is said once in its heading; where a table is still too wide, its least needed
    columns are left to the Markdown and CSV forms.
    """
    parts = []
    for section in board.sections:
        blocks = []
        if section.rows:
            blocks.append((heading(section), columns(section)))
        if section.short:
            blocks.append((f"{heading(section)}: {SHORT_TITLE}", short_columns(section)))
        for title, table in blocks:
            shared, rest = hoist(table)
            parts.append(" · ".join([title, *shared]) + "\n\n" + render_table(fit(rest, width), "simple"))
        notes = "\n".join(textwrap.fill(f"  {line}", width, subsequent_indent="    ") for line in _notes(section, str))
        parts += [notes] if notes else []
    for title, lines in _lists(board):
        parts.append("\n".join([title, *(f"  {line}" for line in lines)]))
    if not parts:
        return "No results yet.\n"
    legend = [CAPTION, *second_hand_lines(board)]
    return "\n\n".join([*parts, *(textwrap.fill(line, width) for line in legend)]) + "\n"


def markdown(board: Leaderboard, records: str = "records", most: int | None = None) -> str:
    """The leaderboard as Markdown: every column, published numbers that no section compares, and what failed.

    ``records`` is the folder of the record files, seen from the file that the text goes into. With ``most``, a table of
    more rows and the shortened runs beside full ones are left to the whole leaderboard, and only their number is said.
    """
    parts = [formatting.escape(line, code=True) for line in (CAPTION, *second_hand_lines(board))]
    linked: list[Record] = []
    # The grid of the synthetic experiment is many small tables.
    gridded = sum(len(section.rows) for section in board.sections if section.metric == "kl")
    if most is not None and gridded > most:
        parts.append(f"The synthetic experiment: {gridded:,} rows, in results/LEADERBOARD.md.")
    for section in board.sections:
        if most is not None and gridded > most and section.metric == "kl":
            continue
        left_out = 0
        if most is not None and any(row.cell for row in section.rows):
            left_out, section = len(section.short), replace(section, short=())
        parts.append(f"### {formatting.escape(heading(section))}")
        linked += [record for row in section.rows if row.cell for record in row.cell.records]
        linked += [row.record for row in section.short]
        linked += [row.partial.record for row in section.rows if row.partial]
        if most is not None and len(section.rows) > most:
            parts.append(f"{len(section.rows):,} rows, in results/LEADERBOARD.md.")
            continue
        if section.rows:
            parts.append(render_table(columns(section), "pipe"))
        if section.short:
            parts += [f"**{SHORT_TITLE}**", render_table(short_columns(section), "pipe")]
        if left_out:
            runs = "One shortened run is" if left_out == 1 else f"{left_out} shortened runs are"
            parts.append(f"{runs} in results/LEADERBOARD.md.")
        notes = [f"- {line}" for line in _notes(section, formatting.escape)]
        parts += ["\n".join(notes)] if notes else []
    if board.other:
        linked += [record for row in board.other for record in row.records]
        parts += ["### Other published values", formatting.escape(OTHERS_CAPTION)]
        parts.append(render_table(other_columns(board.other), "pipe"))
    for title, lines in _lists(board):
        parts += [f"### {title}", "\n".join(f"- {formatting.escape(line, code=True)}" for line in lines)]
    parts += link_definitions(linked, records)
    return "\n\n".join(parts) + "\n"


def second_hand_lines(board: Leaderboard) -> list[str]:
    """One line on the papers whose own tables were not read, and who reports of them, or nothing."""
    if not board.second_hand:
        return []
    said = "; ".join(f"{', '.join(papers)} (by {reporter})" for reporter, papers in board.second_hand.items())
    return [f"Own tables not read, only what others report of them: {said}."]


def heading(section: Section) -> str:
    """``ptb · nt-asgd · train (perplexity)``."""
    title = section.key.scored_by(section.metric)
    protocol, stage = (
        f"{what} unstated" if said == "unstated" else said
        for what, said in (("protocol", section.key.protocol), ("stage", section.key.stage))
    )
    return formatting.clean(f"{section.key.dataset} · {protocol} · {stage} ({title})")


def link_definitions(linked: Iterable[Record], folder: str) -> list[str]:
    """Where the links of :func:`suite.report.columns.link_cell` lead, as one paragraph, or nothing."""
    lines = {f"[{short_key(record)}]: {PurePosixPath(folder, file_name(record))}": None for record in linked}
    return ["\n".join(sorted(lines))] if lines else []


def _notes(section: Section, shown: Callable[[str], str]) -> Iterator[str]:
    """What stands under a section's table: deviations by footnote, runs that got part of the way, data that is missing.

    ``shown`` escapes text for where it goes; links are left to it as they are.
    """
    for place, deviation in enumerate(section.deviations, 1):
        yield f"{formatting.superscript(place)} {shown(deviation_text(deviation))}"
    partial = {row.method: (row.partial, row) for row in section.rows if row.partial}
    for method, (reached, row) in partial.items():
        marks = deviation_marks(section.deviations, row.deviations)
        yield f"{shown(formatting.clean(method))}{marks} is partial: {_reached(reached)}"
    missing: dict[str, list[str]] = {}
    for row in section.rows:
        if row.published and row.published.unavailable and row.cell is None:
            missing.setdefault(row.published.unavailable, []).append(row.method)
    for needed, methods in missing.items():
        yield shown(formatting.clean(f"{', '.join(methods)}: data not available; needed: {needed}"))


def deviation_text(deviation: Deviation) -> str:
    """``float16 products; why: half the time; effect: none seen.``"""
    what, why, effect = (said.rstrip(".") for said in (deviation.what, deviation.why, deviation.effect))
    return formatting.clean(f"{what}; why: {why}; effect: {effect}.")


def _reached(partial: Partial) -> str:
    record = partial.record
    said = f"{partial.reached} (seed {record.seed}, [{short_key(record)}])"
    said += f", {partial.last}" if partial.last else ""
    return f"{said}; {partial.advice}: {_code(partial.command)}"


def _code(command: str) -> str:
    return f"`{formatting.clean(command).replace('`', '')}`"


def _lists(board: Leaderboard) -> list[tuple[str, list[str]]]:
    found = []
    if board.unfinished:
        parts = [partial_of(record, board.tasks) for record in board.unfinished]
        lines = [f"{unfinished_line(p.record)}; {p.reached}; {p.advice}: {_code(p.command)}" for p in parts]
        found.append(("Runs that did not finish", lines))
    if board.retired:
        lines = [f"{record.name}: version {record.task.version} of the task" for record in board.retired]
        found.append(("Runs of retired task versions", [formatting.clean(line) for line in lines]))
    return found


def unfinished_line(record: Record) -> str:
    """``mos-ptb ptb awd-lstm/mos-15 seed 3 diverged: the loss is nan at step 120``."""
    scope = "" if record.scope == "full" else f" ({record.scope})"
    said = "was interrupted" if record.status == "interrupted" else record.status
    return formatting.clean(f"{record.name}{scope} {said}: {record.message or 'no reason was recorded'}")


def hoist(table: list[Column]) -> tuple[list[str], list[Column]]:
    """Columns in which every run says the same are said in the heading instead."""
    shared, rest = [], []
    for column in table:
        said = set(column.cells) - {formatting.DASH}
        if column.title in ("precision", "device", "peak of") and len(said) == 1:
            shared.append(f"{column.title} {said.pop()}" if column.title == "peak of" else said.pop())
        else:
            rest.append(column)
    return shared, rest


def fit(table: list[Column], width: int) -> list[Column]:
    """The columns that ``width`` characters have room for; the least needed go first."""
    while sum(column.width + 2 for column in table) - 2 > width:
        optional = [column.rank for column in table if column.rank]
        if not optional:
            break
        table = [column for column in table if column.rank != min(optional)]
    return table


def render_table(table: list[Column], style: str) -> str:
    """A table as text; ``style`` is tabulate's: ``pipe`` for Markdown, ``simple`` for a terminal."""

    def cells(column: Column) -> list[str]:
        if style != "pipe":
            return list(column.cells)
        return list(column.markdown) if column.markdown else [formatting.escape(cell) for cell in column.cells]

    return tabulate(
        list(zip(*map(cells, table), strict=True)),
        headers=[column.title for column in table],
        tablefmt=style,
        colalign=["right" if column.right else "left" for column in table],
        disable_numparse=True,
    )
