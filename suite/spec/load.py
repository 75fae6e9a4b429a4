"""A task file and the files it extends, as one tree whose every value still knows the file and line it came from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from suite.errors import InputError, Problem
from suite.spec.yaml_source import Mark, Node, parse, read_text

# Either spelling is the same list; a child that uses one replaces its parent's other.
SPELLINGS = (("dataset", "datasets"), ("encoder", "encoders"), ("head", "heads"))
MAX_PARENTS = 16


def load_tree(path: Path) -> tuple[Node, list[Problem]]:
    """The merged tree of a task file, and the problems that leave it usable.

    ``extends: other.yaml`` names one parent, relative to the file it stands in. Mappings merge deeply, lists and
    scalars (null too) replace. A mapping that states another ``name`` or ``trigger`` than its parent's is another
    thing and replaces it whole. ``extends`` and ``abstract`` are not inherited.

    Raises:
        InputError: a file cannot be read or parsed, is not a mapping, or extends itself.
    """
    return _load(path, str(path), ())


def _load(path: Path, shown: str, children: tuple[Path, ...]) -> tuple[Node, list[Problem]]:
    node, problems = parse(read_text(path, shown), shown)
    if not isinstance(node.value, dict):
        found = "nothing" if node.value is None else "a list" if isinstance(node.value, list) else repr(node.value)
        raise InputError(*problems, Problem(f"expected a mapping of keys to values, got {found}", node.where))
    parent = node.value.get("extends")
    if parent is None:
        return node, problems
    if not isinstance(parent.value, str) or not parent.value.strip():
        # The same place may carry a complaint about an anchor or a tag already.
        return node, [*problems, Problem("expected one file name", parent.where, "extends")]
    family = (*children, path.resolve())
    target = path.parent / parent.value
    name = os.path.normpath(os.path.join(os.path.dirname(shown), parent.value))
    try:
        known = target.is_file()
        cycle = target.resolve() in family
    except (OSError, ValueError, RuntimeError):
        known = cycle = False
    if not known:
        return node, [*problems, Problem(f"no such file: {name}", parent.where, "extends")]
    if cycle:
        chain = " -> ".join([*(member.name for member in family), target.name])
        raise InputError(*problems, Problem(f"a file cannot extend itself: {chain}", parent.where, "extends"))
    if len(family) > MAX_PARENTS:
        raise InputError(
            *problems, Problem(f"more than {MAX_PARENTS} files extend each other", parent.where, "extends")
        )
    try:
        base, more = _load(target, name, family)
    except InputError as error:
        raise InputError(*problems, *error.problems) from None
    return _inherit(base, node), problems + more


def _inherit(base: Node, child: Node) -> Node:
    dropped = {"extends", "abstract"}
    for spellings in SPELLINGS:
        given = [name for name in spellings if name in child.value]
        if given:
            dropped |= set(spellings) - set(given)
    return merge(base.without(*dropped), child)


def merge(base: Node, over: Node) -> Node:
    """``over`` laid on ``base``: mappings deeply, everything else replaced; places stay with their values."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or _another(base, over):
        return over
    values, keys = dict(base.value), dict(base.keys)
    for key, value in over.value.items():
        values[key] = merge(values[key], value) if key in values else value
        if key in over.keys:
            keys[key] = over.keys[key]
    return Node(values, over.mark, keys)


def _another(base: Node, over: Node) -> bool:
    for key in ("name", "trigger"):
        ours, theirs = over.value.get(key), base.value.get(key)
        if ours is not None and theirs is not None and ours.plain() != theirs.plain():
            return True
    return False


def in_order(problems: Iterable[Problem], first: str) -> list[Problem]:
    """Problems sorted by file (``first`` leads), line and column, one to a place and key."""

    def place(problem: Problem) -> tuple[bool, Mark]:
        file, *numbers = problem.where.rsplit(":", 2)
        line, column = (int(n) for n in numbers) if len(numbers) == 2 and all(map(str.isdigit, numbers)) else (0, 0)
        return file != first, Mark(file, line, column)

    seen: dict[tuple[str, str, str], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.where, problem.path, problem.message), problem)
    return sorted(seen.values(), key=place)
