"""``suite data``: verify corpora where they lie, or fetch them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tabulate import tabulate

from suite.data import corpora
from suite.errors import DataError
from suite.progress import Progress
from suite.verbs.common import data_access


def data(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite data``."""
    access = data_access(options, Progress())
    names = options.names or corpora.names()
    if options.action == "fetch":
        for name in names:
            print(f"{name}: {corpora.fetch(name, access)}")
        return 0
    rows = []
    refused = False
    for name in names:
        try:
            lines = corpora.verify(name, access)
        except DataError as error:
            refused = True
            for problem in error.problems:
                print(f"error: {problem}", file=sys.stderr)
            continue
        for line in lines:
            refused = refused or line.problem is not None
            agreed = "as published" if line.published else line.basis or "content as published, line ends differ"
            tokens = "" if line.tokens is None else f"{line.tokens:,}"
            rows.append((name, line.part, f"{line.bytes:,}", tokens, line.sha256[:16], line.problem or agreed))
    if rows:
        print(tabulate(rows, headers=("corpus", "split", "bytes", "tokens", "sha256", "verdict")))
    return DataError.exit_code if refused else 0
