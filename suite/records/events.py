"""The append-only log of a run while it runs; what the MLflow mirror reads."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from suite.records.files import naming

EventType = Literal["start", "epoch", "end"]
Event = dict[str, Any]


class EventLog:
    """``events.jsonl`` of one run: one JSON object a line, each with ``type`` and ``time`` (Unix seconds).

    * ``start``: one an attempt; ``attempt``, ``run_key``, ``spec`` (identity), ``task``, ``labels``, ``seed``,
      ``parameters``, ``data`` (digests), ``environment``, ``packed``, ``provenance``.
    * ``epoch``: one a curve point; ``stage``, ``epoch``, ``step`` and numbers (``train_ppl``, ``valid_ppl`` ...).
      A resumed run may repeat an epoch it had not checkpointed; the repeat carries the same numbers.
    * ``end``: ``status``; the record holds the rest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, type_: EventType, **fields: Any) -> None:
        """Add one event and flush it to the operating system."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"type": type_, "time": time.time(), **fields}, ensure_ascii=False, allow_nan=False)
        torn = self._ends_torn()
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            # A kill can leave half a line; close it so that the next event starts on its own.
            file.write(("\n" if torn else "") + line + "\n")

    def _ends_torn(self) -> bool:
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:  # absent or empty
            return False

    def __iter__(self) -> Iterator[Event]:
        """Every whole event in order; a line torn by a kill is skipped."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="replace") as file:
            yield from parse_events(file)


def parse_events(lines: Iterable[str]) -> Iterator[Event]:
    """The whole events in the lines of a log, in order."""
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and "type" in event:
            yield event


def last_lineage(events: list[Event]) -> list[Event]:
    """The events from the last first attempt on: a run started afresh leaves its predecessor's events behind it."""
    starts = [index for index, event in enumerate(events) if event["type"] == "start"]
    fresh = [index for index in starts if events[index].get("attempt", 1) == 1]
    begin = (fresh[-1:] or starts[:1] or [len(events)])[0]
    return events[begin:]
