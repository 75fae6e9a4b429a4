"""YAML 1.2 text into a tree that remembers where every key and value stands.

ruamel.yaml parses; this module composes, because a task file is untrusted and every later error must name a line:
anchors, aliases and tags are refused, size, depth and node count are bounded, and duplicate keys are reported with
both places. Scalars follow the YAML 1.2 core schema: ``1e-4`` is a number, ``on`` and ``2018-01-01`` are text.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from suite.errors import InputError, Problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 20_000

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# What a terminal obeys, and what turns the order of letters around: in no title, label or name.
_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Node:
    """A YAML value with its place.

    ``value`` is a scalar, a list of nodes, or a mapping of text to nodes; ``keys`` gives the place of each key.
    """

    value: Any
    mark: Mark | None = None
    keys: Mapping[str, Mark] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any) -> Node:
        """A tree without places, from plain Python values."""
        if isinstance(value, Mapping):
            return cls({str(key): cls.of(item) for key, item in value.items()})
        if isinstance(value, (list, tuple)):
            return cls([cls.of(item) for item in value])
        return cls(value)

    @property
    def where(self) -> str:
        """``file:line:column``, or nothing for a tree made from plain values."""
        return str(self.mark or "")

    def where_key(self, key: str) -> str:
        """Where ``key`` is written in this mapping."""
        return str(self.keys.get(key) or self.mark or "")

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def without(self, *names: str) -> Node:
        """This mapping less some keys."""
        return Node({key: item for key, item in self.value.items() if key not in names}, self.mark, self.keys)


def scalar(text: str) -> bool | int | float | str | None:
    """A plain scalar under the YAML 1.2 core schema.

    Raises:
        ValueError: an integer has more digits than Python converts.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _unfit(text: str) -> str | None:
    """Why a text can stand in no file or on no terminal, or None."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "text holds half of a surrogate pair, which no file can store"
    order = _ORDERS.search(text)
    return None if order is None else f"text holds the control character U+{ord(order[0]):04X}; take it out"


def read_text(path: Path, shown: str) -> str:
    """The text of a regular UTF-8 file of at most ``MAX_BYTES``.

    Raises:
        InputError: it is absent, unreadable, not a regular file, too large or not UTF-8.
    """
    try:
        # A pipe or a device would block or never end, so look before opening.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(Problem("not a regular file; give a YAML file", shown))
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror or error}", shown)) from None
    except ValueError:  # a null byte in the name
        raise InputError(Problem("cannot be read: not a file name", shown)) from None
    if len(raw) > MAX_BYTES:
        raise InputError(Problem(f"larger than the limit of {MAX_BYTES:,} bytes; is it a task file?", shown))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        mark = Mark(shown, before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise InputError(
            Problem(f"byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8", str(mark))
        ) from None


def parse(text: str, shown: str) -> tuple[Node, list[Problem]]:
    """The tree of one YAML document and the problems that leave it usable (duplicate keys, anchors, tags).

    Raises:
        InputError: a syntax error, or a document too deep or too large; with what was found before it.
    """
    composer = _Composer(text, shown)
    try:
        return composer.document(), composer.problems
    except _Stop as stop:
        raise InputError(*composer.problems, stop.problem) from None


class _Stop(Exception):
    def __init__(self, message: str, where: object) -> None:
        self.problem = Problem(message, str(where))


class _Composer:
    def __init__(self, text: str, shown: str) -> None:
        self.shown = shown
        self.problems: list[Problem] = []
        self._last = Mark(shown, 1, 1)
        self._nodes = 0
        self._events = self._guarded(text)

    def _mark(self, event_or_mark: Any) -> Mark:
        mark = getattr(event_or_mark, "start_mark", event_or_mark)
        return Mark(self.shown, mark.line + 1, mark.column + 1)

    def _guarded(self, text: str) -> Iterator[Event]:
        try:
            for event in YAML(typ="safe", pure=True).parse(text):
                self._last = self._mark(event)
                yield event
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            said = getattr(error, "problem", None) or str(error).splitlines()[0]
            context = getattr(error, "context", None)
            message = " ".join(f"{said} {context or ''}".split())
            raise _Stop(f"not valid YAML: {message}", self._mark(mark) if mark else self._last) from None
        except (AssertionError, ArithmeticError, ValueError) as error:  # odd directives and escapes
            raise _Stop(f"not valid YAML: {error}", self._last) from None

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise _Stop("a second document starts here; one file holds one task", self._mark(event))
                if event.version not in (None, (1, 2)):
                    raise _Stop("task files are YAML 1.2; remove the %YAML line", self._mark(event))
            elif isinstance(event, (ScalarEvent, AliasEvent, MappingStartEvent, SequenceStartEvent)):
                root = self._node(event, 1)
        return root if root is not None else Node(None, Mark(self.shown, 1, 1))

    def _node(self, event: Any, depth: int) -> Node:
        mark = self._mark(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Stop(f"more than {MAX_NODES:,} values; is it a task file?", mark)
        if depth > MAX_DEPTH:
            raise _Stop(f"nested deeper than {MAX_DEPTH} levels", mark)
        if isinstance(event, AliasEvent):
            self._refuse(mark, f"aliases (*{event.anchor}) are not allowed; write the value out, or use `extends:`")
            return Node(None, mark)
        if event.anchor is not None:
            self._refuse(mark, f"anchors (&{event.anchor}) are not allowed; write the value out, or use `extends:`")
        if event.tag is not None:
            self._refuse(mark, "tags are not allowed; write a plain value")
        if isinstance(event, MappingStartEvent):
            return self._mapping(mark, depth)
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(item := next(self._events), SequenceEndEvent):
                items.append(self._node(item, depth + 1))
            return Node(items, mark)
        return Node(self._scalar(event, mark), mark)

    def _mapping(self, mark: Mark, depth: int) -> Node:
        values: dict[str, Node] = {}
        keys: dict[str, Mark] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            where = self._mark(event)
            # The key's own text: `on`, `1` and `null` name nothing, and are then unknown keys.
            key = event.value if isinstance(event, ScalarEvent) else None
            self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if key is None:
                if not isinstance(event, AliasEvent):
                    self._refuse(where, "a key must be text")
            elif _unfit(key) is not None:
                pass  # refused as every text is
            elif key in keys:
                self._refuse(where, f"duplicate key {key!r}, first given on line {keys[key].line}")
            else:
                values[key], keys[key] = value, where
        return Node(values, mark, keys)

    def _scalar(self, event: ScalarEvent, mark: Mark) -> bool | int | float | str | None:
        text: str = event.value
        unfit = _unfit(text)
        if unfit is not None:
            self._refuse(mark, unfit)
            return None
        # An explicit tag was refused already; the value is read on so that other problems still show.
        if not (event.implicit[0] or event.tag) or event.style is not None:
            return text
        try:
            return scalar(text)
        except ValueError:
            self._refuse(mark, f"a number of {len(text):,} digits")
            return None

    def _refuse(self, mark: Mark, message: str) -> None:
        self.problems.append(Problem(message, str(mark)))
