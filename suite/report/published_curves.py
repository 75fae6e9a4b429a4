"""Published learning curves, ``baselines/curves/*.yaml`` and the CSV file each names."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.errors import InputError, Problem
from suite.records.published import BASELINES, Label, Stage
from suite.records.record import Record
from suite.report.pairing import matches
from suite.spec.explain import validate
from suite.spec.recipe import Strict
from suite.spec.types import PositiveInt
from suite.spec.yaml_source import parse, read_text

_COLUMNS = ("stage", "epoch", "valid_ppl")


class _Entry(Strict):
    title: str
    file: str
    dataset: Label
    encoder: Label
    heads: list[str]
    protocols: list[str]
    stage: Stage = "train"
    averaged_from: PositiveInt | None = None


@dataclass(frozen=True, slots=True)
class PublishedCurve:
    """Validation perplexity by epoch; from ``averaged_from`` on it is that of the averaged weights.

    ``heads`` and ``protocols`` are globs over the labels of our runs that follow the same recipe.
    """

    name: str
    title: str
    dataset: str
    encoder: str
    heads: Sequence[str]
    protocols: Sequence[str]
    values: Mapping[int, float]
    averaged_from: int | None = None

    def beside(self, record: Record) -> bool:
        """Whether a run of ours is of the same recipe."""
        labels = record.labels
        return (
            (labels.dataset, labels.encoder) == (self.dataset, self.encoder)
            and matches(labels.head, self.heads)
            and matches(record.task.protocol, self.protocols)
        )


def load_curves(folder: Path | None = None) -> list[PublishedCurve]:
    """Every published curve of a folder (``baselines/curves`` by default), by name.

    Raises:
        InputError: a description is wrong, or its table has no such columns or a value that is no number.
    """
    root = BASELINES / "curves" if folder is None else folder
    found = []
    for path in sorted(root.glob("*.yaml")):
        shown = f"baselines/curves/{path.name}" if folder is None else str(path)
        node, problems = parse(read_text(path, shown), shown)
        entry, more = validate(_Entry, node)
        if entry is None or problems or more:
            raise InputError(*problems, *more)
        values = _read(path.parent / entry.file, f"{Path(shown).parent}/{entry.file}", entry.stage)
        fields = entry.model_dump(exclude={"file", "stage"})
        found.append(PublishedCurve(path.stem, values=values, **fields))
    return found


def _read(path: Path, shown: str, stage: str) -> dict[int, float]:
    rows = list(csv.DictReader(read_text(path, shown).splitlines()))
    if not rows or any(name not in rows[0] for name in _COLUMNS):
        raise InputError(Problem(f"expected the columns {', '.join(_COLUMNS)} and at least one row", f"{shown}:1"))
    values = {}
    for line, row in enumerate(rows, 2):
        try:
            epoch, value = int(row["epoch"]), float(row["valid_ppl"])
        except (TypeError, ValueError):
            raise InputError(Problem("epoch and valid_ppl must be numbers", f"{shown}:{line}")) from None
        if row["stage"] == stage:
            values[epoch] = value
    return values
