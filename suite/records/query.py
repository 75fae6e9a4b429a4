"""The language that filters records: ``head=mos dataset=ptb test.ppl<60``."""

from __future__ import annotations

import math
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

from suite.errors import Problem, raise_all
from suite.records.fields import LABELS, Fields, Scalar, canonical, component_name, ends_with
from suite.records.record import Record

_TERM = re.compile(r"([^=!<>~\s]+)(!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)
_SHAPE = "expected KEY OPERATOR VALUE without spaces, such as head=mos or test.ppl<60; operators: = != < <= > >= ~"
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda one, two: one < two,
    "<=": lambda one, two: one <= two,
    ">": lambda one, two: one > two,
    ">=": lambda one, two: one >= two,
}


class Row(NamedTuple):
    """A record and its values by name."""

    record: Record
    fields: Fields


@dataclass(frozen=True)
class Term:
    """One condition, as typed: ``test.ppl<60`` has key ``test.ppl``, operator ``<`` and value ``60``."""

    text: str
    key: str
    operator: str
    value: str


def is_query(text: str) -> bool:
    """Whether a text has a condition in it, rather than being the name of a run."""
    return any(_TERM.fullmatch(word) for word in _words(text) or ())


def parse(texts: Iterable[str]) -> list[Term]:
    """The conditions in some texts, separated by spaces or commas; quotes keep either within a value.

    Raises:
        InputError: every word that is no condition.
    """
    terms: list[Term] = []
    problems: list[Problem] = []
    for text in texts:
        words = _words(text)
        if words is None:
            problems.append(Problem(f"{text!r}: a quotation mark is not closed"))
        for word in words or ():
            found = _TERM.fullmatch(word)
            if found is None:
                problems.append(Problem(f"{word!r}: {_SHAPE}"))
            else:
                terms.append(Term(word, *found.groups()))
    raise_all(problems)
    return terms


def _words(text: str) -> list[str] | None:
    """Words without their quotation marks, or None where one is not closed."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters, lexer.escape = " \t\r\n,", True, "", ""
    try:
        return list(lexer)
    except ValueError:
        return None


def select(rows: Sequence[Row], terms: Sequence[Term], names: Sequence[str]) -> list[Row]:
    """The rows that pass: every condition must hold, but ``=`` and ``~`` conditions on one key widen each other.

    ``names`` are the fields there are (see :func:`resolve`). ``=`` on a dataset, encoder or head means its label where
    some row has exactly that one, else the component's name (``head=mos``); ``~`` a glob over either. Numbers are
    compared as numbers. A row without the field passes ``!=`` alone; an empty value means that there is none.

    Raises:
        InputError: unknown or ambiguous keys, and values that are no number where the field holds numbers.
    """
    problems: list[Problem] = []
    alternatives: dict[str, list[Callable[[Row], bool]]] = defaultdict(list)
    conditions: list[Callable[[Row], bool]] = []
    for term in terms:
        found = resolve(term.key, names)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        test = _test(term, found, rows)
        if isinstance(test, Problem):
            problems.append(test)
        elif term.operator in "=~":
            alternatives[found].append(test)
        else:
            conditions.append(test)
    raise_all(list(dict.fromkeys(problems)))
    every = [*conditions, *(_any(tests) for tests in alternatives.values())]
    return [row for row in rows if all(test(row) for test in every)]


def _any(tests: Sequence[Callable[[Row], bool]]) -> Callable[[Row], bool]:
    return lambda row: any(test(row) for test in tests)


def resolve(key: str, names: Sequence[str]) -> str | Problem:
    """The field that a key means: its whole name, or an end of it that no other field shares (``lr``)."""
    key = canonical(key)
    if key in names:
        return key
    # What a curve's last point and the options of single stages repeat is rarely what an end of a name is meant for.
    fitting = [name for name in names if ends_with(name, key) and not name.startswith(("last.", "stages["))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        return Problem(f"key {key!r} may mean {_listed(fitting)}; write one of them")
    return Problem(f"unknown key {key!r}.{_near(key, names)} `suite query --keys` lists all.")


def _near(key: str, names: Sequence[str]) -> str:
    # People leave the front of a name out, so its ends are near misses, too.
    whole = {name.split(".", cut)[-1]: name for cut in (2, 1, 0) for name in names}
    close = dict.fromkeys(whole[match] for match in get_close_matches(key, whole, n=3, cutoff=0.7))
    return f" Did you mean {_listed(list(close))}?" if close else ""


def _listed(names: Sequence[str], most: int = 6) -> str:
    if len(names) == 1:
        return names[0]
    shown = [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


def _test(term: Term, name: str, rows: Sequence[Row]) -> Callable[[Row], bool] | Problem:
    """Whether a row passes one condition."""
    value, operator = term.value, term.operator
    if value == "":
        if operator not in ("=", "!="):
            return Problem(f"{term.text!r}: give a value after {operator}")
        return lambda row: (name in row.fields) == (operator == "!=")
    if operator == "~":
        return lambda row: any(fnmatchcase(text, value) for text in _texts(row, name))
    present = [row.fields[name] for row in rows if name in row.fields]
    numeric = bool(present) and all(_is_number(item) for item in present)
    number = _number(value)
    if numeric and number is None:
        return Problem(f"{term.text!r}: {name} holds numbers, and {value!r} is none")
    if operator in _ORDER:
        return _ordered(_ORDER[operator], name, value, number)
    by_component = name in LABELS and all(_text(item) != value for item in present)

    def equal(row: Row) -> bool:
        if by_component:
            return component_name(row.record, name) == value
        return name in row.fields and _equal(row.fields[name], value, number)

    return equal if operator == "=" else lambda row: not equal(row)


def _ordered(
    holds: Callable[[float, float], bool], name: str, value: str, number: float | None
) -> Callable[[Row], bool]:
    def test(row: Row) -> bool:
        found = row.fields.get(name)
        if found is None:
            return False
        if _is_number(found):
            return number is not None and holds(float(found), number)
        # Text by its characters, which is the order of times as records write them.
        text = _text(found)
        return holds((text > value) - (text < value), 0)

    return test


def _texts(row: Row, name: str) -> list[str]:
    texts = [_text(row.fields[name])] if name in row.fields else []
    return [*texts, component_name(row.record, name)] if name in LABELS else texts


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _equal(found: Scalar, value: str, number: float | None) -> bool:
    return float(found) == number if _is_number(found) and number is not None else _text(found) == value


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number
