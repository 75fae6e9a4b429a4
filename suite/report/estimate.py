"""How long a run may take, from the records of runs like it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from suite.records.record import Record
from suite.spec.run_spec import RunSpec, canonical_json


def estimate_seconds(spec: RunSpec, records: Sequence[Record]) -> float | None:
    """Median total seconds of finished runs that differ in the seed only; else scaled by epochs from other budgets.

    Returns:
        Seconds, or None where no record is like the run.
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
    return statistics.median(found) if found else None


def _without_seed(identity: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in identity.items() if key != "seed"}


def _without_budget(identity: dict[str, object]) -> dict[str, object]:
    recipe = identity["recipe"]
    assert isinstance(recipe, dict)
    trimmed = {key: value for key, value in recipe.items() if key != "budget"}
    return {**{k: v for k, v in identity.items() if k != "scope"}, "recipe": trimmed}
