"""Whether a run's event log tells of the same outcome as its record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from suite.records.events import Event, last_lineage
from suite.records.metrics import PRIMARY_METRICS, is_of_machine
from suite.records.record import Record
from suite.spec.run_spec import canonical_json

# A final score is taken again of the best weights; what a GPU repeats, it repeats to within its own arithmetic.
_FINAL = 1e-3
_SAME = 1e-9
_COORDINATES = ("type", "time", "stage", "epoch")
_MOST = 5
_LATEST = 1e11  # Unix seconds, a few thousand years on


def contradictions(record: Record, events: Sequence[Event]) -> list[str]:
    """In what a log and a record disagree, five things at most; nothing where they agree.

    * every event is one that a run writes, with a type and a time;
    * the log is of this run: every attempt names its key, and the last its spec;
    * it ends as the record says, finished or not;
    * the last event of every epoch has the numbers of the curve, seconds and memory apart, where both have them;
    * a final validation score is one that some epoch had.
    """
    for number, event in enumerate(events, 1):
        if not _is_event(event):
            return [f"event {number} of the log is none that a run writes"]
    starts = [event for event in events if event["type"] == "start"]
    if not starts:
        return ["no run begins in the log"]
    for start in starts:
        if start.get("run_key") != record.run_key:
            return [f"the log is of run {str(start.get('run_key'))[:12]}, the record of {record.run_key[:12]}"]
    if not _equal_json(starts[-1].get("spec"), record.spec):
        return ["the log was written with another spec than the record's"]
    lineage = last_lineage(list(events))
    end = lineage[-1] if lineage[-1]["type"] == "end" else None
    if end is not None and (end.get("status") == "finished") != (record.status == "finished"):
        return [f"the log ends with status {str(end.get('status'))[:20]}, the record with {record.status}"]
    found = []
    for said in (*_curves(record, lineage), *_finals(record, lineage)):
        found.append(said)
        if len(found) == _MOST:
            break
    return found


def _is_event(event: Event) -> bool:
    """Whether what reads logs (the mirror, for one) can read this event."""
    time = _number(event.get("time"))
    if event["type"] not in ("start", "epoch", "end") or time is None or not 0 <= time < _LATEST:
        return False
    if event["type"] != "epoch":
        return True
    epoch = _number(event.get("epoch"))
    return epoch is not None and abs(epoch) < _LATEST and isinstance(event.get("stage", ""), str)


def _curves(record: Record, lineage: Sequence[Event]) -> Iterator[str]:
    epochs = {(str(event.get("stage")), _number(event.get("epoch"))): event for event in _epochs(lineage)}
    stages = [str(stage.get("name")) for stage in record.spec.get("stages") or () if isinstance(stage, dict)] or [
        "train"
    ]
    for point in record.curves:
        # ``stage``, where the suite wrote it, counts the stages of the spec from 0.
        stage = stages[min(max(0, int(point.get("stage", 0))), len(stages) - 1)]
        event = epochs.get((stage, point["epoch"])) if "epoch" in point else None
        for name, value in point.items() if event else ():
            logged = _number(event.get(name)) if event else None
            if name in _COORDINATES or is_of_machine(name) or logged is None:
                continue
            if not math.isclose(logged, value, rel_tol=_SAME, abs_tol=1e-12):
                yield f"{name} of epoch {point['epoch']:g} is {logged:.10g} in the log and {value:.10g} in the record"


def _finals(record: Record, lineage: Sequence[Event]) -> Iterator[str]:
    logged = list(_epochs(lineage))
    trained = {str(event.get("stage")) for event in logged}
    for stage, splits in record.metrics.items():
        for name, value in splits.get("valid", {}).items():
            had = [number for event in logged if (number := _number(event.get(f"valid_{name}"))) is not None]
            if stage not in trained or name not in (*PRIMARY_METRICS, "nll") or not had:
                continue
            if not any(math.isclose(number, value, rel_tol=_FINAL) for number in had):
                yield f"{stage} valid {name} is {value:.10g} in the record, and no epoch of the log has that"


def _epochs(lineage: Sequence[Event]) -> Iterator[Event]:
    return (event for event in lineage if event["type"] == "epoch")


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _equal_json(one: Any, other: Any) -> bool:
    try:
        return canonical_json(one) == canonical_json(other)
    except (ValueError, RecursionError):
        return False
