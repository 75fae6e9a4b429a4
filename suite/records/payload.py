"""What the registry is told about a run, as plain values: parameters, tags, curve points, final metrics, times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeVar

from suite.records.events import last_lineage
from suite.records.metrics import final_metrics, finite, is_of_machine, metric_key
from suite.records.record import Record
from suite.records.store import Store
from suite.spec.run_spec import canonical_json

T = TypeVar("T")
RunStatus = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_STATUS: Mapping[str, RunStatus] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
}
_COORDINATES = frozenset({"type", "stage", "epoch", "step", "time"})


class Point(NamedTuple):
    """One value of a curve; ``timestamp`` in Unix milliseconds, ``step`` the epoch."""

    key: str
    value: float
    timestamp: int
    step: int

    @property
    def reproducible(self) -> bool:
        """Whether repeating the epoch must give this value again."""
        return not is_of_machine(self.key)


@dataclass(frozen=True)
class Payload:
    """One run as the registry shall show it.

    ``rows`` holds the points of one evaluation each, in order. ``marker`` is the tag that says everything was
    delivered; it is set last. ``live`` is true while the run is being worked on. Times are Unix milliseconds.
    """

    run_key: str
    name: str
    status: RunStatus
    live: bool
    start: int
    end: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    marker: tuple[str, str]
    rows: tuple[tuple[Point, ...], ...]
    metrics: Mapping[str, float]
    dataset: tuple[str, str] | None
    artifacts: Mapping[str, bytes] = field(repr=False)


def payload_of(store: Store, run_key: str, record: Record | None) -> Payload | None:
    """Describe a run from its record, its event log, or both; None when it has left neither."""
    log = store.events(run_key)
    events = last_lineage(list(log))
    if record is None and not events:
        return None
    # A start later than the record: the run was taken up again, and until that ends the record is not the last word.
    again = record is None or (bool(events) and _last_start(events) > _ended(record))
    live = again and events[-1]["type"] != "end" and store.is_locked(run_key)
    if record is not None and not live and not _belong(events, record):
        events = []
    text = log.path.read_bytes() if events else b""
    last_time = _milliseconds(events[-1]["time"]) if events else 0
    first = events[0] if events else {}
    artifacts = {"events.jsonl": text} if text else {}
    if record is None:
        marker = ("suite.events_sha256", hashlib.sha256(text).hexdigest())
        identity = first.get("spec") or {}
        # A run that left only events was killed before it could write a record.
        status: RunStatus = "RUNNING" if live else _STATUS.get(str(events[-1].get("status")), "KILLED")
        artifacts["spec.json"] = (json.dumps(identity, indent=2, ensure_ascii=False) + "\n").encode()
        about = _about_events(run_key, first)
        data = first.get("data") or {}
        end = None if live else last_time
        state = "running" if live else str(events[-1].get("status", "killed"))
    else:
        content = record.to_json().encode()
        marker = ("suite.record_sha256", hashlib.sha256(content).hexdigest())
        identity = record.spec
        status = "RUNNING" if live else _STATUS[record.status]
        artifacts["record.json"] = content
        about = about_record(record)
        data = record.provenance.data
        # Records give whole seconds, the log's last word is more exact; an end before the start shows as nonsense.
        end = None if live else max(_ended(record), last_time)
        state = "running" if live else record.status
    start = _milliseconds(first["time"]) if first else _iso_milliseconds(record.provenance.started) if record else 0
    return Payload(
        run_key=run_key,
        name=about.name,
        status=status,
        live=live,
        start=start,
        end=end,
        params=_fitting({**_params(identity), **about.params}),
        tags={**about.tags, "suite.status": state, **{f"suite.data.{k}": str(v) for k, v in data.items()}},
        marker=marker,
        rows=tuple(_rows(events, None if live else record)),
        metrics={} if record is None or live else final_metrics(record),
        dataset=(about.params.get("dataset", "data"), _digest(data)) if data else None,
        artifacts=artifacts,
    )


def _last_start(events: list[dict[str, Any]]) -> int:
    # Records give whole seconds.
    return 1000 * max(int(event["time"]) for event in events if event["type"] == "start")


def _belong(events: list[dict[str, Any]], record: Record) -> bool:
    """Whether the log tells of the recorded run, and not of one tried since or, for an imported record, elsewhere."""
    if not events:
        return False
    begin = 1000 * int(events[0]["time"])
    return _iso_milliseconds(record.provenance.started) <= begin <= _ended(record)


class About(NamedTuple):
    """How the registry calls a run, its labels and its tags."""

    name: str
    params: dict[str, str]
    tags: dict[str, str]


def about_record(record: Record) -> About:
    """What a record says of its run: name, labels as parameters, provenance as tags."""
    task, origin = record.task, record.provenance
    labels = record.labels.model_dump()
    params = _labels(task.name, task.protocol, labels, record.seed, record.spec)
    tags = {
        "suite.run_key": record.run_key,
        "suite.scope": record.scope,
        "suite.task": task.name,
        "suite.commit": origin.commit or "",
        "suite.dirty": "" if origin.dirty is None else str(origin.dirty).lower(),
        "suite.device": record.environment.device if record.environment else "",
        "suite.kernel": (record.model.kernel if record.model else None) or "",
        "suite.message": record.message or "",
        # What the UI itself shows as description, source and version.
        "mlflow.note.content": _description(record),
        "mlflow.source.name": origin.command,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": origin.commit or "",
    }
    name = _name(task.name, labels, record.seed)
    return About(name, params, {key: value for key, value in tags.items() if value})


def _name(task: str, labels: Mapping[str, str], seed: Any) -> str:
    """The head first: tables and legends of the UI cut names after some twenty characters."""
    return f"{labels.get('head')} seed {seed}, {labels.get('encoder')} on {labels.get('dataset')} ({task})"


def _description(record: Record) -> str:
    """Markdown for the head of the run's page: what it is, how it ended, where the rest is."""
    headline = sorted((key, value) for key, value in final_metrics(record).items() if "/" not in key)
    outcome = record.message or ", ".join(f"{key} {value:.4g}" for key, value in headline)
    title = f"**{record.task.title or record.task.name}**"
    rest = f"`suite show {record.run_key[:12]}` prints the record; artifact `record.json` is the record."
    return "\n\n".join((title, f"{record.status}: {outcome}" if outcome else record.status, rest))


def _about_events(run_key: str, start: Mapping[str, Any]) -> About:
    task = start.get("task") or {}
    task = task if isinstance(task, dict) else {"name": str(task)}
    labels = start.get("labels") or {}
    identity = start.get("spec") or {}
    params = _labels(task.get("name", ""), task.get("protocol", ""), labels, start.get("seed", 0), identity)
    name = _name(str(task.get("name")), labels, params["seed"])
    tags = {"suite.run_key": run_key, "suite.scope": str(identity.get("scope", "")), "suite.task": params["task"]}
    return About(name, params, {key: value for key, value in tags.items() if value})


def _labels(
    task: str, protocol: str, labels: Mapping[str, str], seed: int, identity: Mapping[str, Any]
) -> dict[str, str]:
    precision = (identity.get("recipe") or {}).get("precision") or {}
    parts = [f"{name} {value}" for name, value in precision.items()]
    values = set(precision.values())
    return {
        "task": task,
        "protocol": protocol,
        "seed": str(seed),
        "cell": cell_digest(identity),
        "precision": str(values.pop()) if len(values) == 1 else ", ".join(parts),
        **{name: str(labels.get(name, "")) for name in ("dataset", "encoder", "head")},
    }


def cell_digest(identity: Mapping[str, Any]) -> str:
    """Six digits that runs share when they differ in their seed alone."""
    apart = {key: value for key, value in identity.items() if key != "seed"}
    return hashlib.sha256(canonical_json(apart).encode()).hexdigest()[:6]


def _params(identity: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys; lists and other values as JSON, strings bare."""
    flat: dict[str, str] = {}
    for key, value in identity.items():
        if isinstance(value, Mapping):
            flat.update(_params(value, f"{prefix}{key}."))
        elif value is not None:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _fitting(params: Mapping[str, str]) -> dict[str, str]:
    return {key[:250]: value[:6000] for key, value in params.items() if value}


def _rows(events: list[dict[str, Any]], record: Record | None) -> Iterator[tuple[Point, ...]]:
    # A resumed run repeats epochs it had not checkpointed; the later one is what the record continues from.
    epochs = {(event.get("stage"), event.get("epoch")): event for event in events if event["type"] == "epoch"}
    if record is None or len(epochs) >= len(record.curves):
        for event in epochs.values():
            yield _row(event, str(event.get("stage", "train")), _milliseconds(event["time"]))
        return
    # A record from another machine has no event log here; its curve then spans the run's start to its end.
    begin, end = _iso_milliseconds(record.provenance.started), _ended(record)
    stages = record.spec.get("stages") or [{"name": "train"}]
    for index, point in enumerate(record.curves, 1):
        spread = begin + (end - begin) * index // len(record.curves)
        # ``stage``, where the suite wrote it, counts the stages of the spec from 0.
        stage = stages[min(int(point.get("stage", 0)), len(stages) - 1)]["name"]
        yield _row(point, stage, _milliseconds(point["time"]) if "time" in point else spread)


def _row(point: Mapping[str, Any], stage: str, timestamp: int) -> tuple[Point, ...]:
    prefix = "curve/" if stage == "train" else f"curve/{stage}/"
    step = int(point.get("epoch", 0))
    values = finite((key, value) for key, value in point.items() if key not in _COORDINATES)
    return tuple(Point(metric_key(prefix + key), value, timestamp, step) for key, value in values)


def _digest(data: Mapping[str, str]) -> str:
    # The registry shows at most 36 characters; the full sums are tags.
    return hashlib.sha256(canonical_json(dict(data)).encode()).hexdigest()[:36]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _iso_milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return _milliseconds((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _ended(record: Record | None) -> int:
    return _iso_milliseconds(record.provenance.ended) if record else 0


def batches(items: list[T], size: int) -> Iterator[list[T]]:
    """``items`` in lists of at most ``size``."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
