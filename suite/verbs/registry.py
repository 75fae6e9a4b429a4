"""Verbs around the records and their mirror in MLflow: import, sync, ui."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from suite.records import importing
from suite.records.store import Store


def import_records(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite import``."""
    found = importing.import_records(Store(options.results), options.paths, replace=options.replace)
    print(f"{len(found.added)} added, {len(found.same)} here already, {len(found.replaced)} replaced")
    for problem in found.refused:
        print(f"refused: {problem}", file=sys.stderr)
    return 2 if found.refused else 0


def sync(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite sync``."""
    from suite.records import tracking

    done = tracking.sync(Store(options.results), say=print)
    print(f"registry: {len(done.created)} new, {len(done.updated)} updated, {len(done.unchanged)} as before")
    for key, reason in done.failed.items():
        print(f"run {key} could not be mirrored: {reason}", file=sys.stderr)
    return 1 if done.failed else 0


def ui(options: argparse.Namespace, _arguments: Sequence[str]) -> int:
    """``suite ui``."""
    from suite.records.ui import serve

    serve(Store(options.results), options.port)
    return 0
