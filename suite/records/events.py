"""The append-only log of a run while it runs; what the MLflow mirror reads."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

EventType = Literal["start", "epoch", "end"]


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
        with self.path.open("a", encoding="utf-8") as file:
            # A kill can leave half a line; close it so that the next event starts on its own.
            file.write(("\n" if torn else "") + line + "\n")

    def _ends_torn(self) -> bool:
        try:
            with self.path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:  # absent or empty
            return False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Every whole event in order; a line torn by a kill is skipped."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and "type" in event:
                    yield event
