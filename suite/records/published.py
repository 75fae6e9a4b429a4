"""Published numbers: ``baselines/*.yaml`` read, checked and frozen.

A file names its papers and protocols, then lists tables; a table's own keys are shared by its ``numbers``, each of
which may override them. What nobody has read is not there, and what was read second-hand says by whom it is reported.
Where two recipes share a label, ``tasks`` says which task files run the number's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator

from suite.errors import InputError, Problem, did_you_mean, raise_all
from suite.spec.explain import dotted, shown, validate
from suite.spec.recipe import Strict
from suite.spec.types import NonNegativeFloat, PositiveFloat, PositiveInt
from suite.spec.yaml_source import Node, parse, read_text

BASELINES = Path(__file__).resolve().parents[2] / "baselines"
# Beside the papers' numbers: the claims that are judged by records.
CLAIMS = "claims.yaml"
DEFAULT_MARGIN = 0.01

# "unstated": the source prints a number without saying which stages it had been through.
Stage = Literal["train", "finetune", "dynamic-evaluation", "cache", "unstated"]
STAGES: tuple[str, ...] = get_args(Stage)


_LABEL = r"[a-z0-9][a-z0-9.+-]*"


def _label(value: str) -> str:
    if not re.fullmatch(_LABEL, value):
        raise ValueError(f"{shown(value)} is not a label; use lower-case letters, digits, '.', '+' and '-'")
    return value


def _method(value: str) -> str:
    if not re.fullmatch(f"{_LABEL}(/{_LABEL})?", value):
        raise ValueError(f"{shown(value)} is neither a head's label nor encoder/head")
    return value


def _globs(value: list[str]) -> list[str]:
    # An empty list would be taken for none at all, and let every task answer.
    if not value or not all(value):
        raise ValueError("expected names of task files or globs over them, at least one; leave it out for any task")
    return value


Label = Annotated[str, AfterValidator(_label)]
Method = Annotated[str, AfterValidator(_method)]
_METRIC = re.compile(r"(train|valid|test)\.[a-z][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Paper:
    """Where numbers come from; ``key`` is short and unique, such as ``yang2018``."""

    key: str
    title: str
    authors: tuple[str, ...]
    venue: str
    year: int
    arxiv: str | None = None

    @property
    def short(self) -> str:
        """``Yang et al. 2018``."""
        names = [author.rsplit(" ", 1)[-1] for author in self.authors]
        who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        return f"{who} {self.year}"


@dataclass(frozen=True, slots=True)
class Value:
    """One printed number; ``sd`` and ``n`` (seeds) where the source gives them; a margin where it has its own."""

    value: float
    sd: float | None = None
    n: int | None = None
    margin: float | None = None

    def width(self, margin: float) -> float:
        """How far from it a mean may lie and reproduce it; ``margin`` is the fraction where it has none of its own."""
        return (self.margin or margin) * abs(self.value)


@dataclass(frozen=True, slots=True)
class Published:
    """The numbers one source prints for one method: ``values`` maps ``split.metric``, such as ``test.ppl``.

    ``parameters`` is as printed (22e6 for "22M"). ``margin`` is the fraction of the value within which a mean counts as
    a reproduction; ``reported_by`` names who reports a number that was not read in its own paper; ``unavailable`` says
    what a user must supply before the number can be run at all. ``tasks`` are globs over the names of the tasks whose
    runs answer the number; none means every task that has its labels. ``against`` names the head, or ``encoder/head``,
    that a gain or a p-value is of, where that is not the softmax of the same encoder.
    """

    paper: Paper
    table: str
    dataset: str
    encoder: str
    head: str
    protocol: str
    stage: str
    values: Mapping[str, Value]
    source: str
    parameters: float | None = None
    framework: str | None = None
    reported_by: str | None = None
    note: str | None = None
    unavailable: str | None = None
    margin: float = DEFAULT_MARGIN
    against: str = "softmax"
    tasks: tuple[str, ...] = ()
    where: str = ""

    @property
    def method(self) -> str:
        """``encoder/head``, the label a run of ours is looked up by."""
        return f"{self.encoder}/{self.head}"

    def answered_by(self, task: str, method: str) -> bool:
        """Whether a run of a task under this label has the number's recipe; dataset, protocol and stage aside."""
        return method == self.method and (not self.tasks or any(fnmatchcase(task, glob) for glob in self.tasks))

    @property
    def reference(self) -> str:
        """``encoder/head`` of what a gain or a p-value is against."""
        return self.against if "/" in self.against else f"{self.encoder}/{self.against}"

    @property
    def citation(self) -> str:
        """``Yang et al. 2018, table 5``; a README, an issue or an abstract stands by its own name."""
        number = re.fullmatch(r"(S?\d+)(, S?\d+)*", self.table)
        table = f"table{'s' * (',' in self.table)} {self.table}" if number else self.table
        return f"{self.paper.short}, {table}"


class _PaperEntry(Strict):
    title: str
    authors: list[str]
    venue: str
    year: PositiveInt
    arxiv: str | None = None


class _ValueEntry(Strict):
    value: float
    sd: NonNegativeFloat | None = None
    n: PositiveInt | None = None
    margin: PositiveFloat | None = None


class _Shared(Strict):
    """What a table may say for all its numbers, and each number for itself."""

    paper: str | None = None
    table: str | None = None
    dataset: Label | None = None
    encoder: Label | None = None
    head: Label | None = None
    protocol: Label | None = None
    stage: Stage | None = None
    parameters: PositiveFloat | None = None
    framework: str | None = None
    source: str | None = None
    reported_by: str | None = None
    note: str | None = None
    unavailable: str | None = None
    margin: PositiveFloat | None = None
    against: Method | None = None
    tasks: Annotated[list[str], AfterValidator(_globs)] | None = None


_REQUIRED = ("paper", "table", "dataset", "encoder", "head", "protocol", "stage", "source")


def load_published(folder: Path | None = None) -> list[Published]:
    """Every published number under ``folder`` (``baselines/`` by default), papers by year, then as the files list them.

    Where there is a folder ``tasks`` beside it, every glob over tasks must match one of its files.

    Raises:
        InputError: every problem of every file, each with file, line and column.
    """
    root = BASELINES if folder is None else folder
    if not root.is_dir():
        raise InputError(Problem("no such folder; published numbers live in baselines/", str(root)))
    problems: list[Problem] = []
    found: list[Published] = []
    papers: dict[str, Paper] = {}
    tasks = sorted(path.stem for path in (root.resolve().parent / "tasks").glob("*.yaml"))
    for path in sorted(path for path in root.glob("*.yaml") if path.name != CLAIMS):
        # The default folder is shown as a reader of the repository knows it, wherever that is checked out.
        reader = _File(path, f"{root.name}/{path.name}" if folder is None else str(path), tasks)
        found.extend(reader.read())
        problems.extend(reader.problems)
        for key in papers.keys() & reader.papers.keys():
            problems.append(Problem(f"paper {key!r} is described in another file too", reader.where_paper(key)))
        papers |= reader.papers
    problems.extend(_duplicates(found))
    raise_all(problems)
    return sorted(found, key=lambda number: (number.paper.year, number.paper.key))


def _duplicates(found: list[Published]) -> Iterator[Problem]:
    first: dict[tuple[str | None, ...], Published] = {}
    for number in found:
        identity = (number.paper.key, number.table, number.dataset, number.method, number.protocol)
        known = first.setdefault((*identity, number.stage, number.framework), number)
        if known is not number:
            yield Problem(
                f"{number.citation} already gives {number.dataset} {number.method} ({number.protocol}, {number.stage}) "
                f"at {known.where}; a re-run needs its own table or framework",
                number.where,
            )


class _File:
    """One file: its papers, protocols and numbers, and every problem met on the way."""

    def __init__(self, path: Path, name: str, tasks: Sequence[str] = ()) -> None:
        self.path, self.name, self.tasks = path, name, tasks
        self.problems: list[Problem] = []
        self.papers: dict[str, Paper] = {}
        self.protocols: frozenset[str] = frozenset()
        self.root = Node({})

    def read(self) -> list[Published]:
        try:
            self.root, self.problems = parse(read_text(self.path, self.name), self.name)
        except InputError as error:
            self.problems = list(error.problems)
            return []
        if not isinstance(self.root.value, dict):
            self._refuse(self.root, "", "expected a mapping with papers, protocols and tables")
            return []
        for key in self.root.value.keys() - {"papers", "protocols", "tables"}:
            hint = did_you_mean(key, ("papers", "protocols", "tables"))
            self.problems.append(Problem(f"unknown key.{hint}", self.root.where_key(key), key))
        for key, node in self._mapping("papers"):
            entry, problems = validate(_PaperEntry, node, f"papers.{key}")
            self.problems += problems
            if entry is not None:
                self.papers[key] = Paper(key, entry.title, tuple(entry.authors), entry.venue, entry.year, entry.arxiv)
        self.protocols = frozenset(key for key, _ in self._mapping("protocols"))
        tables = self._list(self.root, "tables", "")
        return [number for path, table in tables for number in self._table(table, path)]

    def where_paper(self, key: str) -> str:
        """Where the file describes a paper."""
        return self.root.value["papers"].where_key(key)  # type: ignore[no-any-return]

    def _refuse(self, node: Node, path: str, message: str) -> None:
        self.problems.append(Problem(message, node.where, path))

    def _mapping(self, name: str) -> list[tuple[str, Node]]:
        node = self.root.value.get(name)
        if node is None or not isinstance(node.value, dict) or not node.value:
            self._refuse(node or self.root, name, "expected a mapping that is not empty")
            return []
        return list(node.value.items())

    def _list(self, parent: Node, name: str, path: str) -> list[tuple[str, Node]]:
        """The mappings of a list, each with its dotted path."""
        node = parent.value.get(name)
        path = dotted(path, name)
        if node is None or not isinstance(node.value, list) or not node.value:
            self._refuse(node or parent, path, "expected a list that is not empty")
            return []
        items = [(dotted(path, index), item) for index, item in enumerate(node.value)]
        for item_path, item in items:
            if not isinstance(item.value, dict):
                self._refuse(item, item_path, f"expected a mapping, got {shown(item.plain())}")
        return [(item_path, item) for item_path, item in items if isinstance(item.value, dict)]

    def _shared(self, node: Node, path: str, also: str) -> dict[str, Any] | None:
        entry, problems = validate(_Shared, node.without(also), path, extra_keys=[also])
        self.problems += problems
        if entry is None:
            return None
        for index, glob in enumerate(entry.tasks or ()):
            if self.tasks and not any(fnmatchcase(task, glob) for task in self.tasks):
                hint = did_you_mean(glob, self.tasks)
                place = node.value["tasks"].value[index]
                self._refuse(place, dotted(path, "tasks", index), f"{shown(glob)} matches no task file.{hint}")
        return entry.model_dump(exclude_none=True)

    def _table(self, node: Node, path: str) -> Iterator[Published]:
        shared = self._shared(node, path, "numbers")
        for number_path, number in self._list(node, "numbers", path):
            own = self._shared(number, number_path, "values")
            values = self._values(number, number_path)
            if shared is None or own is None:
                continue
            if len(self.papers) == 1:
                shared.setdefault("paper", next(iter(self.papers)))
            fields = {**shared, **own}
            if self._complete(number, number_path, fields) and values:
                fields["paper"] = self.papers[fields["paper"]]
                fields["tasks"] = tuple(fields.get("tasks", ()))
                yield Published(**fields, values=values, where=number.where)

    def _complete(self, node: Node, path: str, fields: dict[str, Any]) -> bool:
        missing = [key for key in _REQUIRED if key not in fields]
        if missing:
            self._refuse(node, path, f"missing {', '.join(missing)}; give it here or for the whole table")
            return False
        known = {"paper": self.papers.keys(), "protocol": self.protocols}
        bad = [key for key, allowed in known.items() if fields[key] not in allowed]
        for key in bad:
            hint = did_you_mean(fields[key], known[key])
            self._refuse(node, dotted(path, key), f"{fields[key]!r} is not among this file's {key}s.{hint}")
        return not bad

    def _values(self, node: Node, path: str) -> dict[str, Value]:
        path = dotted(path, "values")
        values = node.value.get("values")
        if values is None or not isinstance(values.value, dict) or not values.value:
            self._refuse(values or node, path, "expected a mapping such as {valid.ppl: 58.08, test.ppl: 55.97}")
            return {}
        found = {}
        for name, item in values.value.items():
            if not _METRIC.fullmatch(name):
                where = values.where_key(name)
                self.problems.append(Problem(f"{name!r} is no split.metric such as test.ppl", where, path))
            elif (value := self._value(item, f"{path}.{name}")) is not None:
                found[name] = value
        return found

    def _value(self, node: Node, path: str) -> Value | None:
        if isinstance(node.value, dict):
            entry, problems = validate(_ValueEntry, node, path)
            self.problems += problems
            return None if entry is None else Value(float(entry.value), entry.sd, entry.n, entry.margin)
        plain = node.plain()
        if isinstance(plain, bool) or not isinstance(plain, (int, float)) or not math.isfinite(plain):
            self._refuse(node, path, f"expected a finite number or {{value, sd, n, margin}}, got {shown(plain)}")
            return None
        return Value(float(plain))
