"""Records in memory, filtered and turned into rows or a pandas frame: what a notebook and ``suite query`` work with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

from suite.errors import InputError, Problem, raise_all
from suite.records import query
from suite.records.fields import Scalar, fields_of
from suite.records.files import no_collection
from suite.records.query import Row
from suite.records.record import Record
from suite.records.store import Scan, Store

if TYPE_CHECKING:
    import pandas


def load(results: str | os.PathLike[str] = "results") -> Records:
    """Every good record of a results folder, sorted by task, labels and seed.

    Files that are damaged or foreign are left out; :attr:`Records.problems` says which and why.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(results)
    if not folder.is_dir():
        raise InputError(Problem("no such folder; name the one that holds the results", str(folder)))
    return Records(*Store(folder).scan())


class Records(Sequence[Record]):
    """Some records: a sequence of :class:`suite.records.record.Record` that can be filtered and laid out as a table."""

    def __init__(self, records: Iterable[Record], problems: Iterable[Problem] = ()) -> None:
        self.problems = tuple(problems)
        with no_collection():
            self._rows = [Row(record, fields_of(record)) for record in records]
        self._whole = self

    def where(self, *conditions: str) -> Records:
        """The records that pass, e.g. ``"head=mos dataset=ptb test.ppl<60"``; see :mod:`suite.records.query`.

        Raises:
            InputError: a condition cannot be read, or names a field that no record of the folder has.
        """
        return self._of(query.select(self._rows, query.parse(conditions), self.names))

    def sorted(self, key: str, *, descending: bool = False) -> Records:
        """Ordered by one field, numbers before text; equal ones keep their order, and those without it come last.

        Raises:
            InputError: no record of the folder has the field.
        """
        (name,) = self.resolve([key])
        having = [row for row in self._rows if name in row.fields]
        having.sort(key=lambda row: _order(row.fields[name]), reverse=descending)
        return self._of([*having, *(row for row in self._rows if name not in row.fields)])

    def first(self, count: int) -> Records:
        """The first ``count`` of them."""
        return self._of(self._rows[:count])

    def resolve(self, keys: Iterable[str]) -> list[str]:
        """The whole names of some fields, each given whole or by an end that no other shares.

        Raises:
            InputError: every key that is unknown or means several fields.
        """
        found = [query.resolve(key, self.names) for key in keys]
        raise_all([item for item in found if isinstance(item, Problem)])
        return [item for item in found if not isinstance(item, Problem)]

    def rows(self, columns: Iterable[str] | None = None) -> list[dict[str, Scalar | None]]:
        """One mapping a record, the same names in each, None where a record lacks the field; all fields by default.

        Raises:
            InputError: see :meth:`resolve`.
        """
        names = self.own_names if columns is None else self.resolve(columns)
        return [{name: row.fields.get(name) for name in names} for row in self._rows]

    def frame(self, columns: Iterable[str] | None = None) -> pandas.DataFrame:
        """:meth:`rows` as a pandas DataFrame, one row a record.

        Raises:
            InputError: see :meth:`resolve`.
        """
        import pandas

        names = self.own_names if columns is None else self.resolve(columns)
        return pandas.DataFrame(self.rows(names), columns=names)

    @cached_property
    def own_names(self) -> list[str]:
        """The fields that any of these records has, in the order of a record."""
        found: dict[str, None] = {}
        for row in self._rows:
            if not row.fields.keys() <= found.keys():  # most records have what the one before them has
                found.update(dict.fromkeys(row.fields))
        return list(found)

    @property
    def names(self) -> list[str]:
        """The fields that any record of the folder has, so that no filter makes a name unknown."""
        return self._whole.own_names

    def _of(self, rows: list[Row]) -> Records:
        some = Records((), self.problems)
        some._rows, some._whole = rows, self._whole
        return some

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> Record | Records:
        return self._of(self._rows[index]) if isinstance(index, slice) else self._rows[index].record

    def __iter__(self) -> Iterator[Record]:
        return (row.record for row in self._rows)

    def __repr__(self) -> str:
        count = len(self.problems)
        left = f", {count} problem{'s' * (count != 1)} in files left out" if count else ""
        return f"<{len(self)} records{left}>"


class Results:
    """A results folder that several names are looked up in, read once and only if a name needs it."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder)

    @cached_property
    def _scan(self) -> Scan:
        return self._store.scan()

    @cached_property
    def _records(self) -> Records:
        return Records(*self._scan)

    def named(self, text: str) -> list[Record]:
        """The runs that a text names: by first digits of a run key, record file, or conditions that several may pass.

        Raises:
            InputError: nothing or, unless by conditions, several runs are named; a condition is wrong.
        """
        if os.path.isfile(text) or not query.is_query(text):
            scan = None if os.path.isfile(text) else self._scan
            return [self._store.find(text, scan)]
        if not self._records:
            # Without a record no key is known, which is not what is wrong.
            raise InputError(*self._scan.problems, f"{text!r}: {self._store.records_dir} holds no record")
        found = self._records.where(text)
        if not found:
            raise InputError(f"{text!r}: none of {len(self._records)} records passes")
        return list(found)


def _order(value: Scalar) -> tuple[bool, float, str]:
    if isinstance(value, str):
        return True, 0.0, value
    return False, float(value), ""
