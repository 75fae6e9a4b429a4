"""Types in words, and pydantic's errors as problems a user can mend: where, what was expected, what was given."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from suite.errors import Problem, did_you_mean
from suite.spec.yaml_source import Node

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Nested:
    """Annotation mark: the value is a component of ``kind``, by name or as a mapping with ``name`` and options."""

    kind: str


def unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without its ``Annotated`` layers, and what they said (bounds, marks), flattened."""
    said: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        for item in more:
            said.extend([item, *item.metadata] if isinstance(item, FieldInfo) else [item])
    return annotation, said


def nested_kind(annotation: Any) -> str | None:
    """The kind of component an option nests, or None."""
    base, said = unwrap(annotation)
    for item in said:
        if isinstance(item, Nested):
            return item.kind
    return next((kind for member in members(base) if (kind := nested_kind(member))), None)


def members(base: Any) -> tuple[Any, ...]:
    """The members of a union, or nothing."""
    return get_args(base) if get_origin(base) in (Union, types.UnionType) else ()


def field_type(field: FieldInfo) -> Any:
    """A model field's type with the bounds pydantic keeps beside it."""
    if not field.metadata:
        return field.annotation
    return Annotated[(field.annotation, *field.metadata)]


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the key a file uses."""
    return {info.alias or name: info for name, info in model.model_fields.items()}


def type_text(annotation: Any) -> str:
    """A type as a user says it: ``positive integer``, ``list of positive integers``, ``number from 0 to 1 or null``."""
    base, said = unwrap(annotation)
    for item in said:
        if isinstance(item, Nested):
            return f"{item.kind} component (a name, or a mapping with its name and options)"
    if parts := members(base):
        return " or ".join(dict.fromkeys(type_text(part) for part in parts))
    if get_origin(base) is Literal:
        values = ", ".join(shown(value) for value in get_args(base))
        return f"one of {values}" if len(get_args(base)) > 1 else values
    if get_origin(base) is list:
        return f"list of {_plural(type_text(get_args(base)[0]))}"
    if base is str and any(getattr(item, "min_length", None) for item in said):
        return "non-empty text"
    if base in (int, float):
        return _number(base, said)
    return {bool: "true or false", str: "text", type(None): "null"}.get(base, "mapping")


def _number(base: type, said: Iterable[Any]) -> str:
    noun = "integer" if base is int else "number"
    bounds = {
        name: value
        for item in said
        for name in ("gt", "ge", "lt", "le")
        if (value := getattr(item, name, None)) is not None
    }
    if bounds == {"gt": 0}:
        return f"positive {noun}"
    if bounds == {"ge": 0}:
        return f"non-negative {noun}"
    if set(bounds) == {"ge", "le"}:
        return f"{noun} from {bounds['ge']} to {bounds['le']}"
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}
    return " ".join([noun, " and ".join(f"{words[name]} {value}" for name, value in bounds.items())]).strip()


def _plural(text: str) -> str:
    if text.startswith("list of"):
        return text.replace("list", "lists", 1)
    for noun in ("integer", "number"):
        if noun in text:
            return text.replace(noun, noun + "s", 1)
    return text.replace("mapping", "mappings", 1) if text.startswith("mapping") else text


def with_article(text: str) -> str:
    """``a positive integer``, ``an integer``, ``text``, ``one of ...``."""
    if text.startswith(("one of", "true", "text", "non-empty text", "null")):
        return text
    return f"{'an' if text[:1] in 'aeiou' else 'a'} {text}"


def shown(value: Any) -> str:
    """A value as a message shows it: text quoted, the rest as YAML writes it; long ones cut."""
    if isinstance(value, str):
        text = repr(value)
    else:
        text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def choices(name: str, allowed: Iterable[str]) -> str:
    """``Did you mean``, when something is close, and every allowed name."""
    names = sorted(set(allowed))
    hint = did_you_mean(name, names)
    return hint if "Allowed: " in hint or not names else f"{hint} Allowed: {', '.join(names)}."


def dotted(path: str, *parts: str | int) -> str:
    """``heads[1].experts`` from ``heads``, 1, ``experts``."""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def validate(
    model: type[M], node: Node, path: str = "", extra_keys: Iterable[str] = ()
) -> tuple[M | None, list[Problem]]:
    """The model of a tree, or None and every problem in it.

    ``path`` is the key of ``node`` in the whole file; ``extra_keys`` are names to suggest beside the model's own.
    """
    try:
        return model.model_validate(node.plain()), []
    except ValidationError as error:
        found: dict[tuple[str, str], Problem] = {}
        for item in error.errors(include_url=False):
            problem = _Explainer(model, node, path, extra_keys).explain(item)
            found.setdefault((problem.where, problem.path), problem)
        return None, list(found.values())


class _Explainer:
    """Walks one pydantic error down the model and the tree side by side."""

    def __init__(self, model: type[BaseModel], node: Node, path: str, extra_keys: Iterable[str]) -> None:
        self.type: Any = model
        self.node: Node | None = node
        self.path = path
        self.where = node.where
        self.extra_keys = tuple(extra_keys)
        self.field: FieldInfo | None = None
        self.inside = False  # below the field's own value, in a list or mapping
        self.owner: type[BaseModel] = model

    def explain(self, item: Mapping[str, Any]) -> Problem:
        for part in item["loc"]:
            if not self._step(part):
                break
        return Problem(self._message(item), self.where, self.path)

    def _step(self, part: str | int) -> bool:
        base, _ = unwrap(self.type)
        if parts := members(base):
            # pydantic names the member of a union it tried; only a tagged mapping is worth following.
            tagged = [member for member in _models(base) if part in _tags(member)]
            if tagged:
                self.type, self.owner = tagged[0], tagged[0]
                return True
            rest = [member for member in parts if unwrap(member)[0] is not type(None)]
            if len(rest) != 1:
                return False
            self.type = rest[0]
            return self._step(part)
        if isinstance(base, type) and issubclass(base, BaseModel):
            self.owner, self.field, self.inside = base, fields(base).get(str(part)), False
            self.type = field_type(self.field) if self.field else Any
        elif get_origin(base) is list:
            self.type, self.inside = get_args(base)[0], True
        else:
            return False
        self._descend(part)
        return True

    def _descend(self, part: str | int) -> None:
        self.path = dotted(self.path, part)
        value = self.node.value if self.node else None
        if isinstance(value, dict) and isinstance(part, str):
            assert self.node is not None
            # An unknown key is shown where the key stands, a wrong value where the value does.
            self.where = (
                self.node.where_key(part) if self.field is None else value[part].where if part in value else self.where
            )
            self.node = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            self.node = value[part]
            self.where = self.node.where
        else:
            self.node = None

    def _message(self, item: Mapping[str, Any]) -> str:
        kind, context = item["type"], item.get("ctx", {})
        if kind == "missing":
            return f"missing; expected {with_article(type_text(self.type))}"
        if kind == "extra_forbidden":
            return "unknown key." + did_you_mean(self.path.rsplit(".", 1)[-1], [*fields(self.owner), *self.extra_keys])
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            return self._tag(context["discriminator"].strip("'"))
        if kind == "value_error":
            return str(context["error"])
        if kind == "finite_number":
            return f"expected a finite number, got {shown(item['input'])}{self._about()}"
        expected = _tagged_text(self.type) or with_article(type_text(self.type))
        return f"expected {expected}, got {shown(item['input'])}{self._about()}"

    def _tag(self, key: str) -> str:
        allowed = [tag for member in _models(unwrap(self.type)[0]) for tag in _tags(member)]
        given = self.node.value.get(key) if self.node else None
        if given is None:
            return f"missing {key!r}; expected {key}: {' or '.join(allowed)}"
        self.path, self.where = dotted(self.path, key), given.where
        name = given.plain()
        hint = did_you_mean(name, allowed) if isinstance(name, str) else ""
        allowed_text = ", ".join(shown(tag) for tag in allowed)
        return f"expected one of {allowed_text}, got {shown(name)}.{hint if 'Did' in hint else ''}".removesuffix(".")

    def _about(self) -> str:
        """The whole option's type where the error is inside it, and its default where it has a plain one."""
        if self.field is None:
            return ""
        facts = [type_text(field_type(self.field))] if self.inside else []
        default = self.field.default
        if not self.field.is_required() and not isinstance(default, BaseModel) and self.field.default_factory is None:
            facts.append(f"default {shown(default)}")
        return f" ({', '.join(facts)})" if facts else ""


def _models(base: Any) -> list[type[BaseModel]]:
    found = []
    for member in members(base):
        inner, _ = unwrap(member)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found.append(inner)
        else:
            found.extend(_models(inner))
    return found


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """The values of the one-word ``Literal`` that tells a union's members apart."""
    for info in model.model_fields.values():
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1:
            return get_args(info.annotation)
    return ()


def _tagged_text(annotation: Any) -> str:
    models = [model for model in _models(unwrap(annotation)[0]) if _tags(model)]
    if not models:
        return ""
    key = next(name for name, info in models[0].model_fields.items() if get_origin(info.annotation) is Literal)
    tags = " or ".join(tag for model in models for tag in _tags(model))
    null = " or null" if any(unwrap(member)[0] is type(None) for member in members(unwrap(annotation)[0])) else ""
    return f"a mapping with {key}: {tags}{null}"
