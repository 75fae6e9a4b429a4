"""The leaderboard as files: blocks between markers in Markdown, and CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from suite.errors import InputError, Problem
from suite.records.files import atomic_write
from suite.report.cells import CellCosts
from suite.report.compare import Summary
from suite.report.formatting import clean
from suite.report.leaderboard import Leaderboard
from suite.report.rows import Row, Section


def markers(name: str) -> tuple[str, str]:
    """The comments between which the block ``name`` of a Markdown file stands."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def has_block(path: Path, name: str) -> bool:
    """Whether a file has a place for a block: any of its markers."""
    return any(marker in path.read_text(encoding="utf-8") for marker in markers(name))


def update_block(path: Path, block: str, title: str | None = None, name: str = "leaderboard") -> bool:
    """Replace what stands between the markers ``name`` of a Markdown file; the rest of it is kept.

    A missing file is created when ``title`` gives its heading. Returns whether the file changed.

    Raises:
        InputError: the file is missing, unreadable or not UTF-8, or its markers are missing, repeated or out of order.
    """
    try:
        # newline="" keeps the line endings of a file written elsewhere.
        with path.open(encoding="utf-8", newline="") as file:
            old = file.read()
    except FileNotFoundError:
        if title is None:
            raise InputError(Problem("no such file", str(path))) from None
        old = None
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror or error}", str(path))) from None
    except UnicodeDecodeError:
        raise InputError(Problem("cannot be read: it is not UTF-8", str(path))) from None
    if old is None:
        before, after = f"# {title}\n\n", "\n"
    else:
        before, after = _outside(old, path, name)
    begin, end = markers(name)
    new = f"{before}{begin}\n{block.strip()}\n{end}{after}"
    if new != old:
        atomic_write(path, new)
    return new != old


def _outside(text: str, path: Path, name: str) -> tuple[str, str]:
    problems = []
    begin, finish = markers(name)
    for marker in (begin, finish):
        count = text.count(marker)
        if count != 1:
            said = "is missing" if count == 0 else f"stands {count} times"
            problems.append(
                Problem(f"marker {marker} {said}; write one {begin} and, after it, one {finish}", str(path))
            )
    if problems:
        raise InputError(*problems)
    start, end = text.index(begin), text.index(finish)
    if end < start:
        line = text[:end].count("\n") + 1
        raise InputError(Problem(f"marker {finish} stands before {begin}; swap them", f"{path}:{line}"))
    return text[:start], text[end + len(finish) :]


def rows(board: Leaderboard) -> list[dict[str, Any]]:
    """One flat mapping a leaderboard row, full precision, the same keys in each; ``pandas.DataFrame(rows)`` reads it.

    ``kind`` is floor, published or ours, then smoke and short, which nothing is compared with.
    """
    found = [_row(section, row) for section in board.sections for row in section.rows]
    found += [
        {
            **_place(section),
            "kind": short.record.scope,
            "method": short.record.labels.method,
            "n": 1,
            **{f"ours_{split}": value for split, value in short.values.items()},
            "seeds": short.record.seed,
            "records": short.record.run_key,
        }
        for section in board.sections
        for short in section.short
    ]
    keys = list(dict.fromkeys(key for row in found for key in row))
    return [{key: row.get(key) for key in keys} for row in found]


def csv_text(board: Leaderboard) -> str:
    """:func:`rows` as CSV; an empty cell is an absent number."""
    table = rows(board)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(table[0]) if table else [], lineterminator="\n")
    if table:
        writer.writeheader()
    writer.writerows(
        {key: clean(value) if isinstance(value, str) else value for key, value in row.items()} for row in table
    )
    return buffer.getvalue()


def write_csv(board: Leaderboard, path: Path) -> None:
    """Write :func:`csv_text` in one step."""
    atomic_write(path, csv_text(board))


def _place(section: Section) -> dict[str, Any]:
    return {**section.key._asdict(), "metric": section.metric}


def _row(section: Section, row: Row) -> dict[str, Any]:
    number, cell = row.published, row.cell
    kind = "floor" if row.floor else "published" if number else "ours"
    said: dict[str, Any] = {**_place(section), "kind": kind, "method": row.method, "note": "; ".join(row.notes)}
    said |= {
        "paper": number.paper.key if number else None,
        "table": number.table if number else None,
        "framework": number.framework if number else None,
        "reported_by": number.reported_by if number else None,
        "published_parameters": number.parameters if number else None,
    }
    for split in ("train", "valid", "test"):
        value = number.values.get(f"{split}.{section.metric}") if number else None
        said[f"published_{split}"] = value.value if value else None
        said[f"published_{split}_sd"] = value.sd if value else None
    for split in ("train", "valid", "test"):
        ours = cell.summary(split, section.metric) if cell else Summary(0)
        said[f"ours_{split}"] = row.floor.values.get(split) if row.floor else ours.mean
        said[f"ours_{split}_sd"] = ours.sd
    printed = number.values.get(f"{row.split}.{section.metric}") if number else None
    said["margin"] = (printed.margin if printed and printed.margin else number.margin) if number else None
    compared = (row.ours or {}).get(row.split, Summary(0))
    said |= {
        "compared": row.split,
        "n": None if row.floor else compared.n,
        "low": compared.low,
        "high": compared.high,
        "delta": row.delta,
    }
    said["verdict"] = row.verdict.value if row.verdict else None
    for name in ("valid", "test"):
        said[f"ours_official_{name}"] = cell.summary(name, "official_ppl").mean if cell else None
    for name in ("mode_match", "rank"):
        said[f"ours_{name}"] = (row.secondary or {}).get(name, Summary(0)).mean
    if row.floor:
        said |= {"ours_rank": row.floor.rank, "floor_entropy": row.floor.entropy}
    costs = row.costs or CellCosts()
    said |= {
        "parameters": cell.parameters if cell else None,
        "seconds_per_epoch": costs.seconds_per_epoch,
        "joules_per_epoch": costs.joules_per_epoch,
        "peak_mib": costs.peak_mib,
        "peak_source": costs.peak_source or None,
        "costs_exclusive": costs.exclusive if cell else None,
        "precision": cell.precision if cell else None,
        "device": costs.device,
        "seeds": " ".join(map(str, cell.seeds)) if cell else None,
        "records": " ".join(record.run_key for record in cell.records) if cell else None,
    }
    return said
