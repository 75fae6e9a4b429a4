"""``suite query``: the records that pass some conditions, as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from suite.errors import InputError
from suite.records.files import no_collection
from suite.records.selection import Records, load
from suite.report.formatting import clean
from suite.report.listing import default_columns, render


def query(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite query``."""
    with no_collection():  # nothing that a listing makes is given up before the command ends
        return _query(options)


def _query(options: argparse.Namespace) -> int:
    everything = load(options.results) if options.results.is_dir() else Records(())
    for problem in everything.problems:
        print(f"warning: record left out: {problem}", file=sys.stderr)
    if not everything:
        raise InputError(f"no records in {options.results}: `suite run demo` makes some, `suite import` adds others'")
    if options.keys:
        print("\n".join(map(clean, everything.names)))
        return 0
    found = everything.where(*options.conditions)
    for key, descending in reversed([_order(text) for text in _split(options.sort)]):
        found = found.sorted(key, descending=descending)
    shown = found if options.limit is None else found.first(options.limit)
    columns = found.resolve(_split(options.columns)) or default_columns(shown)
    sys.stdout.write(render(shown, columns, options.format))
    if options.format == "table":
        cut = f"the first {len(shown)} of " if len(shown) < len(found) else ""
        print(f"\n{cut}{len(found)} of {len(everything)} records")
    return 0


def _split(texts: Sequence[str]) -> list[str]:
    return [part for text in texts for part in text.replace(",", " ").split()]


def _order(text: str) -> tuple[str, bool]:
    key, _, direction = text.partition(":")
    if direction not in ("", "asc", "desc"):
        raise InputError(f"--sort {text}: expected KEY, KEY:asc or KEY:desc")
    return key, direction == "desc"
