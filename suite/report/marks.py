"""What a reader must know of a row before its numbers: partial, one seed, packed, stale, shortened; always in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from suite.records.record import Record
from suite.report.rows import Row, ShortRow
from suite.report.tasks import Tasks, is_stale

STALE = "the task file has changed since"


class Kind(StrEnum):
    """What a mark is about."""

    PARTIAL = "partial"
    SINGLE = "single seed"
    PACKED = "packed"
    STALE = "stale"
    SHORT = "short"
    SMOKE = "smoke"


class Mark(NamedTuple):
    """One mark: its kind, and the whole of it in words."""

    kind: Kind
    text: str


def marks(row: Row | ShortRow, tasks: Tasks) -> list[Mark]:
    """The marks of a row, the gravest first; none where its numbers may be taken as they are."""
    return list(_short(row, tasks) if isinstance(row, ShortRow) else _full(row, tasks))


def _full(row: Row, tasks: Tasks) -> Iterator[Mark]:
    if row.partial:
        yield Mark(Kind.PARTIAL, f"partial: {row.partial.reached}, fills no cell")
    if row.cell is None:
        return
    yield from _stale(row.cell.records, tasks)
    if len(row.cell.seeds) == 1:
        yield Mark(Kind.SINGLE, "single seed: no interval")
    yield from _packed(row.cell.records)


def _short(row: ShortRow, tasks: Tasks) -> Iterator[Mark]:
    kind = Kind(row.record.scope)
    yield Mark(kind, f"{kind} run: not comparable")
    yield from _stale([row.record], tasks)
    yield from _packed([row.record])


def _stale(records: Sequence[Record], tasks: Tasks) -> Iterator[Mark]:
    stale = [record for record in records if is_stale(record, tasks)]
    if stale:
        yield Mark(Kind.STALE, f"stale{_part(stale, records)}: {STALE}")


def _packed(records: Sequence[Record]) -> Iterator[Mark]:
    packed = [record for record in records if record.costs and record.costs.packed]
    if packed:
        yield Mark(Kind.PACKED, f"packed{_part(packed, records)}: shared the GPU, costs do not count")


def _part(some: Sequence[Record], records: Sequence[Record]) -> str:
    return "" if len(some) == len(records) else f" ({len(some)} of {len(records)} runs)"
