"""``suite compare``: runs side by side."""

from __future__ import annotations

import argparse
import string
from collections.abc import Sequence

from suite.errors import InputError
from suite.records.selection import Results
from suite.report.side_by_side import render
from suite.report.sides import side_of


def compare(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite compare``."""
    letters = string.ascii_uppercase
    if not 2 <= len(options.sides) <= len(letters):
        raise InputError(f"compare sets 2 to {len(letters)} sides beside each other, not {len(options.sides)}")
    results = Results(options.results)
    sides = [side_of(letter, text, results.named(text)) for letter, text in zip(letters, options.sides, strict=False)]
    print(render(sides), end="")
    return 0
