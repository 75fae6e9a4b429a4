"""What a comparison sets side by side: some runs of one cell each, under a letter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from suite.errors import InputError
from suite.records.fields import Scalar, fields_of
from suite.records.record import Record
from suite.report import formatting
from suite.report.grouping import differing_keys, flatten, spec_hash

_SHOWN_KEYS, _SHOWN_VALUES = 4, 3


@dataclass(frozen=True)
class Side:
    """Runs of one cell, which differ in their seed alone; ``letter`` is what columns call them."""

    letter: str
    records: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """The run of the lowest seed."""
        return self.records[0]

    def by_seed(self, stage: str, split: str, metric: str) -> dict[int, float]:
        """The metric of every run that has it."""
        found = {r.seed: r.metrics.get(stage, {}).get(split, {}).get(metric) for r in self.records}
        return {seed: value for seed, value in found.items() if value is not None}

    @cached_property
    def fields(self) -> Sequence[Mapping[str, Scalar]]:
        """The values of every run by name."""
        return [fields_of(record) for record in self.records]

    def said(self, name: str) -> str:
        """The values of a field over the runs, each once."""
        shown = dict.fromkeys(formatting.clean(str(fields[name])) for fields in self.fields if name in fields)
        return ", ".join(shown) or formatting.DASH


def side_of(letter: str, text: str, records: Iterable[Record]) -> Side:
    """The runs that ``text`` names, as one side.

    Raises:
        InputError: they are of several cells; the keys in which these differ are named.
    """
    found = sorted(records, key=lambda record: (record.seed, record.run_key))
    cells = {spec_hash(record): record for record in found}
    if len(cells) > 1:
        raise InputError(
            f"{text!r} leaves {len(found)} runs of {len(cells)} cells, which differ in "
            f"{_differences(list(cells.values()))}; add conditions until one cell is left"
        )
    return Side(letter, tuple(found))


def _differences(records: Sequence[Record]) -> str:
    flat = [dict(flatten(record.spec)) for record in records]
    keys = differing_keys(records)
    said = []
    for key in keys[:_SHOWN_KEYS]:
        values = sorted({formatting.clean(one.get(key, "absent")) for one in flat}, key=_by_number)
        more = [f"{len(values) - _SHOWN_VALUES} more"] if len(values) > _SHOWN_VALUES else []
        said.append(f"{key} ({', '.join([*values[:_SHOWN_VALUES], *more])})")
    more = [f"{len(keys) - _SHOWN_KEYS} more keys"] if len(keys) > _SHOWN_KEYS else []
    return ", ".join([*said, *more])


def _by_number(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def ranges(numbers: Iterable[int]) -> str:
    """``1-3, 7``: whole numbers, three in a row and more as a range."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
