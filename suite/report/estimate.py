"""How long a run may take, from the records of runs like it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from suite.records.record import Record
from suite.spec.run_spec import RunSpec, canonical_json


class Estimate(NamedTuple):
    """Seconds; ``rough`` where only runs of another task, head or arithmetic are there to go by."""

    seconds: float
    rough: bool


def estimate_seconds(spec: RunSpec, records: Sequence[Record]) -> Estimate | None:
    """Seconds that a run may take.

    The median total of finished runs that differ in the seed only; else of those that differ in the budget, too,
    scaled by epochs. Else, roughly, the epochs of the budget at the seconds an epoch of the likest runs: same dataset,
    encoder, head and arithmetic, then of any arithmetic, then of any head.

    Returns:
        None where no record is like the run.
    """
    same, scaled = [], []
    mine = _without_seed(spec.identity)
    mine_any_budget = _without_budget(mine)
    epochs = spec.recipe["budget"]["epochs"]
    for record in records:
        if record.status != "finished" or record.costs is None or record.task.name != spec.task:
            continue
        seconds = record.costs.seconds["total"]
        other = _without_seed(record.spec)
        if canonical_json(other) == canonical_json(mine):
            same.append(seconds)
        elif canonical_json(_without_budget(other)) == canonical_json(mine_any_budget):
            scaled.append(seconds * epochs / record.spec["recipe"]["budget"]["epochs"])
    found = same or scaled
    if found:
        return Estimate(statistics.median(found), rough=False)
    if spec.recipe["budget"].get("steps") is not None:
        return None
    # By how many of these they share, from the first on.
    wanted = list(_likeness(spec.identity))
    best: dict[int, list[float]] = {}
    for record in records:
        if record.costs is not None and record.costs.seconds_per_epoch is not None:
            shared = next((i for i, (a, b) in enumerate(zip(wanted, _likeness(record.spec), strict=True)) if a != b), 4)
            if shared >= _LEAST:
                best.setdefault(shared, []).append(record.costs.seconds_per_epoch)
    return Estimate(epochs * statistics.median(best[max(best)]), rough=True) if best else None


_LEAST = 2  # dataset and encoder


def _likeness(identity: Mapping[str, Any]) -> Iterator[Any]:
    """What decides how long an epoch takes, the most telling first."""
    head = identity["head"]
    yield identity["dataset"]
    yield identity["encoder"]["name"]
    yield [head["name"], head.get("experts"), (head.get("pointwise") or {}).get("name")]
    yield identity["recipe"]["precision"]


def _without_seed(identity: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in identity.items() if key != "seed"}


def _without_budget(identity: dict[str, object]) -> dict[str, object]:
    recipe = identity["recipe"]
    assert isinstance(recipe, dict)
    trimmed = {key: value for key, value in recipe.items() if key != "budget"}
    return {**{k: v for k, v in identity.items() if k != "scope"}, "recipe": trimmed}
