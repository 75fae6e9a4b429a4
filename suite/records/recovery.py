"""A record from the event log of a run that ended without writing one: its machine was lost, or it was killed."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from suite.errors import InputError, Problem
from suite.records.events import Event, last_lineage, parse_events
from suite.records.reading import read_bytes, verified
from suite.records.record import Costs, Record

# The message of such a record; no checkpoint of its run is known to be left.
MADE_OF_EVENTS = "the run ended without a record; this one is made of its event log"
_UNKNOWN = "unknown"
_NOT_CURVE = {"type", "time", "stage"}


def record_from_events(path: Path) -> Record:
    """What a run's ``events.jsonl`` tells, as a record of status ``interrupted``: its curves, and no final score.

    Where an epoch was repeated after a resumption, the repeat stands; what came before a fresh start is another run's.

    Raises:
        InputError: the file is not such a log, is larger than 64 MiB, tells of a run that finished and has a record of
            its own, or names another run than its spec is of.
    """
    lines = read_bytes(path, "log", ".jsonl").decode("utf-8", "replace").splitlines()
    events = last_lineage(list(parse_events(lines)))
    starts = [event for event in events if event["type"] == "start"]
    if not starts:
        raise InputError(Problem("no run begins in it; expected the events.jsonl of a run", str(path)))
    if events[-1]["type"] == "end" and events[-1].get("status") == "finished":
        raise InputError(Problem("the run finished and has a record of its own: import that", str(path)))
    try:
        record = _record(events, starts)
        record.to_json().encode()  # half of a surrogate pair passes for text until it is written
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError, OSError) as error:
        words = (str(error).splitlines() or ["no message"])[0]
        raise InputError(Problem(f"not the event log of a run: {type(error).__name__}: {words}", str(path))) from None
    return verified(record, str(path))


def _record(events: list[Event], starts: list[Event]) -> Record:
    start = starts[-1]
    points: dict[tuple[Any, Any], dict[str, float]] = {}
    for event in events:
        if event["type"] == "epoch":
            point = {key: value for key, value in event.items() if key not in _NOT_CURVE}
            points[event.get("stage"), event.get("epoch")] = point
    curves = list(points.values())
    provenance = start.get("provenance", {})
    return Record.model_validate(
        {
            "schema": 1,
            "run_key": start["run_key"],
            "status": "interrupted",
            "scope": start["scope"],
            "task": start["task"],
            "labels": start["labels"],
            "seed": start["seed"],
            "spec": start["spec"],
            "curves": curves,
            "costs": _costs(curves, start.get("packed")),
            "environment": start["environment"],
            "provenance": {
                "commit": provenance.get("commit"),
                "dirty": provenance.get("dirty"),
                "step_code": provenance.get("step_code"),
                "command": provenance.get("command", _UNKNOWN),
                "suite_version": provenance.get("suite_version", _UNKNOWN),
                "data": start["data"],
                "started": _time(starts[0]["time"]),
                "ended": _time(events[-1]["time"]),
                "attempts": start["attempt"],
                "train_from": provenance.get("train_from"),
            },
            "message": MADE_OF_EVENTS,
        }
    )


def _costs(curves: list[dict[str, float]], packed: bool | None) -> Costs | None:
    """Training time alone, where it is known that the run had its device to itself."""
    seconds = [point["seconds"] for point in curves if "seconds" in point]
    if packed is None or not seconds:
        return None
    total = round(sum(seconds), 3)
    if packed:
        return Costs(seconds={"train": total, "total": total}, packed=True)
    steady = seconds[1:] or seconds
    return Costs(
        seconds={"train": total, "total": total},
        seconds_per_epoch=statistics.median(steady),
        epochs_timed=len(steady),
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
