"""A record's outcome as flat, finite numbers: what the registry and its views call metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from suite.records.record import Costs, Record

# What results are ranked by, lower is better; the first that a dataset has (bits per character come with perplexity).
PRIMARY_METRICS = ("bpc", "ppl", "kl")

_MACHINE = re.compile(r"second|time|mib|joule|watt")


def is_of_machine(name: str) -> bool:
    """Whether a number measures the machine and not the model, so that a repeated epoch need not repeat it."""
    return _MACHINE.search(name) is not None


def final_metrics(record: Record) -> dict[str, float]:
    """The last stage's primary metrics as plain ``test_ppl``, then all by stage and split, costs, sizes, facts.

    The registry shows one section for each prefix: ``train-stage/test_ppl``, ``cost/train_seconds``,
    ``model/parameters``, ``data/test_floor_ppl``. ``test_ppl_above_floor`` is the distance to a known floor.
    """
    found: dict[str, float] = {}
    for splits in record.metrics.values():
        for split, values in splits.items():
            found.update({f"{split}_{name}": values[name] for name in PRIMARY_METRICS if name in values})
    for split in ("valid", "test"):
        floor = record.facts.get(f"{split}_floor_ppl")
        if floor is not None and f"{split}_ppl" in found:
            found[f"{split}_ppl_above_floor"] = found[f"{split}_ppl"] - floor
    for stage, splits in record.metrics.items():
        for split, values in splits.items():
            found.update({f"{stage}-stage/{split}_{name}": value for name, value in values.items()})
    for name in PRIMARY_METRICS:
        curve = [point[f"valid_{name}"] for point in record.curves if f"valid_{name}" in point]
        if curve:
            found[f"best_valid_{name}"] = min(curve)
    if record.model:
        found.update((f"model/{name}", value) for name, value in finite(record.model.model_dump().items()))
    if record.costs:
        found.update(_costs(record.costs))
    found.update({f"data/{name}": value for name, value in record.facts.items()})
    return {metric_key(key): value for key, value in finite(found.items())}


def _costs(costs: Costs) -> dict[str, float]:
    phases = {f"cost/{phase}_seconds": seconds for phase, seconds in costs.seconds.items()}
    return phases | {
        f"cost/{name}": value for name, value in finite(costs.model_dump(exclude={"seconds", "epochs_timed"}).items())
    }


def finite(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    """Finite numbers only: the registry would store an infinity as a very large perplexity."""
    for key, value in items:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield key, float(value)


def metric_key(name: str) -> str:
    """``name`` in the characters the registry accepts, at most 250 of them."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
