"""What separates a run from its entry in the registry; pure values, so that each is delivered once, in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from suite.records.payload import Payload, Point, RunStatus


@dataclass(frozen=True)
class Held:
    """What the registry holds of a run: ``metrics`` the latest values, ``points`` the curves by key and step."""

    run_id: str
    status: RunStatus
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    has_dataset: bool = False
    points: Mapping[tuple[str, int], float] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Any) -> Held:
        """What an ``mlflow.entities.Run`` tells; its points are asked for apart."""
        info, data = run.info, run.data
        has_dataset = bool(run.inputs and run.inputs.dataset_inputs)
        return cls(info.run_id, info.status, info.run_name or "", data.params, data.tags, data.metrics, has_dataset)


@dataclass(frozen=True)
class Changes:
    """What to send. ``corrections`` are final metrics whose older value the entry already shows."""

    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[Point, ...]
    finals: tuple[Point, ...]
    corrections: tuple[Point, ...]

    def __bool__(self) -> bool:
        return bool(self.params or self.tags or self.points or self.finals or self.corrections)


def is_delivered(payload: Payload, held: Held) -> bool:
    """Whether an earlier delivery of exactly this state was completed."""
    key, value = payload.marker
    return not payload.live and held.tags.get(key) == value and held.status == payload.status


def contradicts(payload: Payload, held: Held) -> bool:
    """Whether the entry tells of another outcome, so that adding to it would mix two runs.

    Registries append; a value that was sent cannot be taken back. What a machine measures (seconds, memory) may
    differ when an epoch is repeated; what the model gives may not.
    """
    if any(held.params.get(key, value) != value for key, value in payload.params.items()):
        return True
    for row in payload.rows:
        for point in row:
            known = held.points.get((point.key, point.step))
            if point.reproducible and known is not None and not _same(known, point.value):
                return True
    finished = held.status == "FINISHED"
    if payload.live:
        return finished
    finals = {key: value for key, value in held.metrics.items() if not key.startswith("curve/")}
    if finals.keys() - payload.metrics.keys():
        return True
    return finished and any(not _same(value, payload.metrics[key]) for key, value in finals.items())


def changes(payload: Payload, held: Held | None) -> Changes:
    """What the entry lacks; everything when there is no entry. An epoch's value is sent for its step only once."""
    end = payload.end or 0
    if held is None:
        points = tuple(point for row in payload.rows for point in row)
        finals = tuple(Point(key, value, end, 0) for key, value in payload.metrics.items())
        return Changes(payload.params, payload.tags, points, finals, ())
    points = tuple(point for row in payload.rows for point in row if (point.key, point.step) not in held.points)
    differing = {key: value for key, value in payload.metrics.items() if not _same(held.metrics.get(key), value)}
    return Changes(
        params={key: value for key, value in payload.params.items() if key not in held.params},
        tags={key: value for key, value in payload.tags.items() if held.tags.get(key) != value},
        points=points,
        finals=tuple(Point(key, value, end, 0) for key, value in differing.items() if key not in held.metrics),
        corrections=tuple(Point(key, value, end, 0) for key, value in differing.items() if key in held.metrics),
    )


def _same(held: float | None, value: float) -> bool:
    return held is not None and math.isclose(held, value, rel_tol=1e-9, abs_tol=1e-300)
