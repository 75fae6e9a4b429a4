"""The leaderboard: a pure function of records, published numbers and what the task files say of themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from suite.records.metrics import PRIMARY_METRICS
from suite.records.published import Paper, Published
from suite.records.record import Record
from suite.report.grouping import group
from suite.report.others import OtherRow, other_rows
from suite.report.rows import Section, Sources, build_sections
from suite.report.tasks import Tasks, is_current

Show = Literal["ours", "datasets", "all"]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Sections in a stable order, and what fills no cell of them.

    ``other`` are published values that no section compares by (ranks, gains, slow-downs); ``unfinished`` are failed,
    diverged and interrupted runs; ``retired`` are runs of a task version that is no longer current. ``second_hand``
    maps who reports it to the papers here of which no number was read in the paper itself.
    """

    sections: tuple[Section, ...]
    other: tuple[OtherRow, ...] = ()
    unfinished: tuple[Record, ...] = ()
    retired: tuple[Record, ...] = ()
    tasks: Tasks = field(default_factory=dict)
    second_hand: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def build(
    records: Iterable[Record],
    published: Sequence[Published],
    *,
    tasks: Tasks | None = None,
    datasets: Sequence[str] | None = None,
    show: Show = "datasets",
) -> Leaderboard:
    """Records and published numbers side by side.

    Only finished full runs of a task's current version fill a cell. ``tasks`` maps a task's name to what its file says;
    records of a task it does not name are taken as they are. ``datasets`` keeps only those; ``show`` keeps sections
    with a run of ours ("ours"), of datasets with one ("datasets"), or all.
    """
    wanted = None if datasets is None else frozenset(datasets)
    # A stable order whatever the order of files: identical inputs give identical text.
    mine = sorted(
        (record for record in records if wanted is None or record.labels.dataset in wanted),
        key=lambda record: (record.name, record.run_key),
    )
    known = tasks or {}
    current = [record for record in mine if is_current(record, known)]
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
    short = [record for record in finished if record.scope != "full"]
    sources = Sources(cells, short, unfinished, theirs, known)
    sections = build_sections(sources, scored)
    return Leaderboard(
        sections=tuple(section for section in sections if show != "ours" or section.has_ours),
        other=tuple(other_rows(sources, sections)) if show == "all" else (),
        unfinished=tuple(unfinished),
        retired=tuple(record for record in mine if not is_current(record, known)),
        tasks=known,
        second_hand=_second_hand(published, {number.paper.key for number in theirs}),
    )


def _second_hand(published: Iterable[Published], shown: Container[str]) -> dict[str, tuple[str, ...]]:
    readers: dict[Paper, dict[str | None, None]] = defaultdict(dict)
    for number in published:
        if number.paper.key in shown:
            readers[number.paper][number.reported_by] = None
    found: dict[str, list[str]] = defaultdict(list)
    for paper, by in readers.items():
        if None not in by:
            found[" and ".join(map(str, by))].append(paper.short)
    return {reporters: tuple(papers) for reporters, papers in sorted(found.items())}


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
        spots = places[*identity, number.reported_by, source, *number.tasks]
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
