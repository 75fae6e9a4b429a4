"""A record as flat values by dotted name: what a query may ask for, and the columns of a table of records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.records.record import Record

Scalar = str | int | float | bool
Fields = Mapping[str, Scalar]
LABELS = ("dataset", "encoder", "head")
# The one name of a split in records, and what people also call it.
_ALSO = {"validation": "valid"}


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted keys and their plain values, depth first: ``{"recipe.optimizer.lr": 20.0}``.

    A list is one value unless it holds mappings (``stages[0].name``); so is an empty mapping.
    """
    found: dict[str, Any] = {}
    _collect(value, path, found)
    return found


def _collect(value: Any, path: str, found: dict[str, Any]) -> None:
    # Thousands of records are laid out at once; most values are plain, and a type is told faster than a protocol.
    kind = type(value)
    if kind is dict and value:
        for key, item in value.items():
            _collect(item, f"{path}.{key}" if path else str(key), found)
    elif kind is list and any(type(item) is dict for item in value):
        for index, item in enumerate(value):
            _collect(item, f"{path}[{index}]", found)
    else:
        found[path] = value


def fields_of(record: Record) -> dict[str, Scalar]:
    """Every value of a record by its name; what the record does not hold has no entry.

    * ``key``, ``status``, ``scope``, ``message``, ``seed``; ``task``, ``version``, ``title``, ``paper``, ``protocol``;
      the labels ``dataset``, ``encoder``, ``head`` and ``method`` (encoder/head).
    * the spec's own keys: ``dataset.name``, ``head.experts``, ``recipe.optimizer.lr``, ``stages[0].name``.
    * metrics: ``train.test.ppl`` with the stage, ``test.ppl`` of the last stage that has it; ``last.valid_ppl`` of the
      curve's last point.
    * ``model.*``, ``facts.*``, ``costs.*`` (``costs.seconds.total``), ``environment.*``, ``provenance.*``, as in the
      file. Seconds, MiB, joules.

    Lists come as text: ``960, 960, 620``.
    """
    task, labels = record.task, record.labels
    found: dict[str, Any] = {
        "key": record.run_key,
        "task": task.name,
        "version": task.version,
        "title": task.title,
        "paper": task.paper,
        "protocol": task.protocol,
        "dataset": labels.dataset,
        "encoder": labels.encoder,
        "head": labels.head,
        "method": labels.method,
        "seed": record.seed,
        "status": record.status,
        "scope": record.scope,
        "message": record.message,
    }
    # What the spec shares with the lines above (task, version, seed, scope) has the same value.
    found.update(leaves(record.spec))
    for stage, splits in record.metrics.items():
        for split, values in splits.items():
            for name, value in values.items():
                found[f"{stage}.{split}.{name}"] = found[f"{split}.{name}"] = value
    if record.curves:
        found.update((f"last.{name}", value) for name, value in record.curves[-1].items())
    for part in ("model", "facts", "costs", "environment", "provenance"):
        content = getattr(record, part)
        if content:
            # Pydantic's own dump takes ten times as long.
            found.update(leaves(content if isinstance(content, dict) else vars(content), part))
    for name in [name for name, value in found.items() if value is None or type(value) in (list, dict)]:
        value = found.pop(name)
        if value:
            found[name] = ", ".join(map(str, value))
    return found


def canonical(name: str) -> str:
    """A field's name with the word for a split that records use: ``validation.ppl`` is ``valid.ppl``."""
    return ".".join(_ALSO.get(part, part) for part in name.split("."))


def ends_with(name: str, tail: str) -> bool:
    """Whether ``tail`` is the end of a dotted name: ``lr`` of ``recipe.optimizer.lr``."""
    return name.endswith(tail) and (len(name) == len(tail) or name[-len(tail) - 1] == ".")


def component_name(record: Record, label: str) -> str:
    """The name of the component behind a label (``mos`` behind ``mos-15``); empty where the spec does not say."""
    part = record.spec.get(label)
    return str(part.get("name", "")) if isinstance(part, Mapping) else ""
