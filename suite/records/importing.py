"""Records made elsewhere, added to a results folder: record files, bundles, event logs of runs that left no record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.errors import InputError, Problem
from suite.records.bundle import Item
from suite.records.files import atomic_write
from suite.records.reading import parse_record, read_bytes
from suite.records.recovery import record_from_events
from suite.records.store import Store, rank
from suite.records.unbundle import read_bundle


@dataclass(frozen=True)
class ImportReport:
    """What an import did, by run key; ``refused`` says why something was left out."""

    added: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    refused: tuple[Problem, ...] = ()


def import_records(store: Store, paths: Sequence[Path], *, replace: bool = False) -> ImportReport:
    """Add record files, bundles, or folders of either, and event logs of runs that left no record.

    Each record is validated and its key recomputed; its name here comes from its content's labels, never from a path.
    A finished record replaces an unfinished one, a later unfinished one an earlier; any other difference is refused
    unless ``replace``. An event log comes with its record where none is here.
    """
    added: list[str] = []
    same: list[str] = []
    replaced: list[str] = []
    refused: list[Problem] = []
    for path in _expand(paths, refused):
        try:
            items = _read(path)
        except InputError as error:
            refused.extend(error.problems)
            continue
        for record, events in items:
            key = record.run_key
            try:
                known = store.get(key)
            except InputError as error:
                refused.extend(error.problems)
                continue
            if known == record:
                same.append(key)
            elif known is None:
                store.write(record)
                added.append(key)
            elif replace or (known.status != "finished" and rank(record) > rank(known)):
                store.write(record, replace=True)
                replaced.append(key)
            else:
                kind = "finished" if known.status == "finished" else "later"
                where = store.path_of(known)
                message = f"a different, {kind} record of this run is already here: {where}; remove it first"
                refused.append(Problem(message, str(path)))
                continue
            log = store.events(key).path
            if events is not None and not log.exists() and not store.is_locked(key):
                atomic_write(log, events)
    return ImportReport(tuple(added), tuple(same), tuple(replaced), tuple(refused))


def _read(path: Path) -> list[Item]:
    if path.suffix == ".zip":
        return read_bundle(path)
    if path.suffix == ".jsonl":
        return [Item(record_from_events(path), None)]
    return [Item(parse_record(read_bytes(path), str(path)), None)]


def _expand(paths: Iterable[Path], refused: list[Problem]) -> Iterator[Path]:
    """Files as given; of a folder its records and bundles, and those of its ``records`` folder, not deeper."""
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = sorted(
            file
            for place in (path, path / "records")
            for kind in ("json", "zip")
            for file in place.glob(f"[!.]*.{kind}")
        )
        if not found:
            refused.append(Problem("holds no .json or .zip file, nor does a records folder in it", str(path)))
        yield from found
