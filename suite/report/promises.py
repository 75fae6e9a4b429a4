"""The faults that were injected to prove the promises of README.md, as a table."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from suite.errors import InputError, Problem
from suite.records.reading import read_bytes
from suite.records.shape import first_words
from suite.report import formatting
from suite.report.columns import Column
from suite.report.table import render_table

NOT_COUNTED = "No fault has been counted here yet: `make torture` injects them and writes torture.json."
_CAPTION = (
    "Each fault as often as `make torture` injects it. Lost: a finished result, work from before the last checkpoint, "
    "or a promise otherwise not kept, in that many of the tries."
)


class Fault(BaseModel):
    """One row: what goes wrong, how a test brings it about, how often it was tried and how often anything was lost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: str
    how: str
    tried: NonNegativeInt
    lost: NonNegativeInt


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[Fault]


def load_faults(path: Path) -> list[Fault]:
    """The rows of ``torture.json``; none where there is no such file.

    Raises:
        InputError: it is not such a file.
    """
    if not path.exists():
        return []
    try:
        return _Kept.model_validate_json(read_bytes(path, "table of faults")).rows
    except ValidationError as error:
        raise InputError(
            *(Problem(first_words(detail), str(path), ".".join(map(str, detail["loc"]))) for detail in error.errors())
        ) from error


def promises_markdown(path: Path) -> str:
    """A table of the faults in ``torture.json``, or a sentence where none was counted."""
    faults = [fault for fault in load_faults(path) if fault.tried]
    if not faults:
        return NOT_COUNTED
    total = Fault(fault="all", how="", tried=sum(f.tried for f in faults), lost=sum(f.lost for f in faults))
    rows = [*faults, total]
    columns = [
        Column("fault", tuple(formatting.clean(row.fault) for row in rows)),
        Column("how it is injected", tuple(formatting.clean(row.how) for row in rows)),
        Column("tried", tuple(f"{row.tried:,}" for row in rows), right=True),
        Column("lost", tuple(f"{row.lost:,}" for row in rows), right=True),
    ]
    return f"{_CAPTION}\n\n{render_table(columns, 'pipe')}\n"
