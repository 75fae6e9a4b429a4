"""Records as a table that a query prints: for people, for Markdown, as CSV or as JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Literal

from tabulate import tabulate

from suite.records.fields import Scalar
from suite.records.metrics import PRIMARY_METRICS
from suite.records.selection import Records
from suite.report import formatting

Format = Literal["table", "markdown", "csv", "json"]
# The stage is not named: the last one that has the metric.
_SCORES = [f"{split}.{name}" for name in PRIMARY_METRICS for split in ("valid", "test")]
_ALWAYS = ("task", "dataset", "encoder", "head", "seed")
_WHERE_THEY_VARY = ("version", "scope", "status")
_LAST = ("costs.seconds_per_epoch", "environment.device", "key")
_DIGITS = 12


def default_columns(records: Records) -> list[str]:
    """What a table shows unless told: labels, what does not hold for all of them, scores, time, device and key."""
    known = set(records.own_names)
    varying = [name for name in _WHERE_THEY_VARY if len({row[name] for row in records.rows([name])}) > 1]
    return [name for name in [*_ALWAYS, *varying, *_SCORES, *_LAST] if name in known]


def render(records: Records, columns: Sequence[str], form: Format) -> str:
    """Some records as text, a row each. CSV and JSON have every digit, and nothing or null where a value is missing."""
    rows = records.rows(columns)
    if form == "json":
        return _escaped(json.dumps(rows, indent=2, ensure_ascii=False)) + "\n"
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([formatting.clean(name) for name in columns])
        for row in rows:
            values = (row[name] for name in columns)
            writer.writerow([formatting.clean(value) if isinstance(value, str) else value for value in values])
        return buffer.getvalue()
    numeric = [any(_is_number(row[name]) for row in rows) for name in columns]
    cells = [[_shown(name, row[name]) for name in columns] for row in rows]
    headers = [formatting.clean(name.removeprefix("costs.").removeprefix("environment.")) for name in columns]
    if form == "markdown":
        cells = [[formatting.escape(cell) for cell in row] for row in cells]
        # An underscore within a word is no emphasis.
        headers = [name if re.fullmatch(r"[\w.]+", name) else formatting.escape(name) for name in headers]
    return (
        tabulate(
            cells,
            headers=headers,
            tablefmt="pipe" if form == "markdown" else "simple",
            colalign=["right" if right else "left" for right in numeric] if cells else None,
            disable_numparse=True,
        )
        + "\n"
    )


def _escaped(text: str) -> str:
    """JSON whose text gives a terminal no orders: ``\\u009b`` in a string is the character itself."""
    return text if text.replace("\n", "").isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return json.dumps(character)[1:-1]


def _is_number(value: Scalar | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(name: str, value: Scalar | None) -> str:
    if value is None:
        return formatting.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return formatting.clean(value[:_DIGITS] if name in ("key", "provenance.commit") else value)
    if isinstance(value, int):
        return str(value) if name in ("seed", "version") else f"{value:,}"
    last = name.rsplit(".", 1)[-1]
    if name.startswith("costs."):
        return formatting.cost(value)
    return formatting.metric(value, last) if name.count(".") and _is_score(last) else f"{value:g}"


def _is_score(name: str) -> bool:
    return name.removeprefix("valid_").removeprefix("train_") in (*PRIMARY_METRICS, "mode_match", "tokens")
