"""The small language of option types, read from source: the names of :mod:`suite.spec.types` and how they combine."""

from __future__ import annotations

import ast
import functools
import operator
import typing
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from suite.spec import types
from suite.spec.explain import Nested


class Unreadable(Exception):
    """An option cannot be understood; ``node`` is the part of the source at fault."""

    def __init__(self, message: str, node: ast.expr | None = None) -> None:
        super().__init__(message)
        self.node = node


_PLAIN: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    # A file knows neither tuples nor nested components; both reach the constructor as a resolved plain value.
    "PointwiseOption": Annotated[Any, Nested("pointwise")],
    **{name: kind for name, kind in vars(types).items() if typing.get_origin(kind) is Annotated},
}
_SEQUENCES = ("list", "List", "Sequence", "tuple")


def read_annotation(node: ast.expr) -> Any:
    """The type an annotation stands for; ``list``, ``Sequence`` and ``tuple[X, ...]`` are all lists in a file.

    Raises:
        Unreadable: the annotation is not of this language.
    """
    if isinstance(node, ast.Constant):
        if node.value is None:
            return type(None)
        if isinstance(node.value, str):
            try:
                return read_annotation(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                pass
    elif isinstance(node, (ast.Name, ast.Attribute)):
        if (name := last_name(node)) in _PLAIN:
            return _PLAIN[name]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return operator.or_(read_annotation(node.left), read_annotation(node.right))
    elif isinstance(node, ast.Subscript):
        return _subscript(node)
    names = ", ".join(sorted(_PLAIN))
    message = f"{ast.unparse(node)} is not a type of options; use {names}, Literal[...], list[...] or X | None"
    raise Unreadable(message, node)


def _subscript(node: ast.Subscript) -> Any:
    name = last_name(node.value)
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        try:
            values = tuple(ast.literal_eval(item) for item in inner)
        except ValueError:
            raise Unreadable("Literal takes constants", node) from None
        return Annotated[Literal[values], BeforeValidator(functools.partial(_same_type, values))]
    if name == "tuple" and len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is Ellipsis:
        inner.pop()
    if name in _SEQUENCES and len(inner) == 1:
        return list[read_annotation(inner[0])]  # type: ignore[misc]  # a type known only when it is read
    if name == "Optional" and len(inner) == 1:
        return operator.or_(read_annotation(inner[0]), type(None))
    raise Unreadable(f"{ast.unparse(node)} is not a type of options", node)


def _same_type(allowed: tuple[Any, ...], value: Any) -> Any:
    """Literal compares with ==, for which True is 1 and 1.0 is 1."""
    if any(type(value) is type(item) and value == item for item in allowed):
        return value
    raise PydanticCustomError("literal_error", "not an allowed value")


def last_name(node: ast.expr) -> str:
    """``b`` of ``a.b`` and of ``b``; empty for any other expression."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
