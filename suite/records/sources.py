"""Where the registry's view of a run comes from: its record file, its event log, or both."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from suite.records.events import EventLog
from suite.records.payload import Payload, payload_of
from suite.records.reading import read_record
from suite.records.store import Store


class Source(NamedTuple):
    """A file and the state it was seen in; a different state means something new to deliver."""

    path: Path
    modified_ns: int
    size: int


def find_sources(store: Store) -> dict[str, tuple[Source, ...]]:
    """The sources of every run by the first 12 digits of its key, record file first; nothing is opened."""
    found: dict[str, list[Source]] = {}
    paths = [(path, path.stem[-12:]) for path in store.paths()]
    paths += [(path, path.parent.name[:12]) for path in sorted(store.runs_dir.glob("*/events.jsonl"))]
    for path, short_key in paths:
        try:
            status = path.stat()
        except FileNotFoundError:  # renamed in between; the next look finds it
            continue
        found.setdefault(short_key, []).append(Source(path, status.st_mtime_ns, status.st_size))
    return {key: tuple(sources) for key, sources in found.items()}


def read_payload(store: Store, sources: tuple[Source, ...]) -> Payload | None:
    """What the registry shall show of a run, or None when its event log does not even say which run it is.

    Raises:
        InputError: the record file is damaged.
    """
    for source in sources:
        if source.path.suffix == ".json":
            key = read_record(source.path).run_key
            return payload_of(store, key, store.get(key))
    for event in EventLog(sources[0].path):
        if event["type"] == "start" and isinstance(event.get("run_key"), str):
            return payload_of(store, event["run_key"], None)
    return None
