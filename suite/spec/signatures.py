"""A component's options, read from its source and never by importing it.

Listing, planning and validating must answer at once and run where torch is absent, so a constructor's keyword-only
parameters are read with :mod:`ast`: annotations through a small evaluator over the names of
:mod:`suite.spec.types`, defaults as literals.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field, TypeAdapter, ValidationError, create_model

from suite.errors import InputError, Problem
from suite.spec.annotations import Unreadable, last_name, read_annotation
from suite.spec.explain import members, nested_kind, shown, type_text, unwrap, with_article
from suite.spec.recipe import Strict


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()

# Keys an entry of a task file uses for itself.
RESERVED = ("name", "label")


@dataclass(frozen=True)
class OptionInfo:
    """One keyword-only parameter of a component. ``default`` is ``REQUIRED`` when there is none."""

    name: str
    annotation: Any
    default: Any

    @property
    def type(self) -> str:
        """The type in words, such as ``list of positive integers``."""
        return type_text(self.annotation)

    @property
    def nested(self) -> str | None:
        """The kind of component this option holds, or None."""
        return nested_kind(self.annotation)

    @property
    def nullable(self) -> bool:
        """Whether null is a value of its own."""
        return type(None) in members(unwrap(self.annotation)[0])


@dataclass(frozen=True, eq=False)
class Signature:
    """What a class or function says of itself: the first line of its docstring and its options, in order."""

    summary: str
    options: tuple[OptionInfo, ...]

    @functools.cached_property
    def model(self) -> type[Strict]:
        """A model of the options as a mapping; fields go by alias, so that an option may be called ``copy``."""
        fields: dict[str, Any] = {}
        for index, option in enumerate(self.options):
            required = option.default is REQUIRED
            default = ... if required else option.default
            fields[f"option_{index}"] = (option.annotation, Field(default, alias=option.name))
        return create_model("Options", __base__=Strict, **fields)


@dataclass(frozen=True)
class Registered:
    """A ``@register("kind", "name")`` found in a source file, on the class or function ``attribute``."""

    kind: str
    name: str
    attribute: str
    where: str


def module_path(module: str) -> Path | None:
    """The source file of a dotted module, found without importing it or its parents; None when there is none."""
    first, *rest = module.split(".")
    try:
        found = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    if found is None:
        return None
    if not rest:
        return Path(found.origin) if found.has_location and found.origin else None
    for folder in found.submodule_search_locations or ():
        base = Path(folder).joinpath(*rest)
        for candidate in (base.with_name(base.name + ".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def read_signature(path: Path, attribute: str) -> Signature:
    """The options of a class (following base classes to the ``__init__`` that counts) or function.

    Raises:
        InputError: the file does not parse, lacks ``attribute``, or annotates an option beyond what is understood.
    """
    return _signature(_module(path), attribute)


@functools.lru_cache(maxsize=256)
def _signature(module: _Module, attribute: str) -> Signature:
    definition = module.definitions.get(attribute)
    if definition is None:
        raise InputError(Problem(f"has no class or function {attribute!r}", str(module.path)))
    summary = (ast.get_docstring(definition) or "").strip().split("\n")[0]
    owner, function = _constructor(module, definition, ())
    if function is None:
        return Signature(summary, ())
    problems: list[Problem] = []
    options: list[OptionInfo] = []
    for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        try:
            options.append(_option(owner, argument, default))
        except Unreadable as error:
            node = error.node or argument
            where = f"{owner.path}:{node.lineno}:{node.col_offset + 1}"
            problems.append(Problem(f"option {argument.arg!r} of {attribute}: {error}", where))
    if problems:
        raise InputError(*problems)
    return Signature(summary, tuple(options))


def read_registered(path: Path) -> list[Registered]:
    """Every top-level class or function under ``@register("kind", "name")``, in order.

    Raises:
        InputError: the file does not parse.
    """
    found = []
    for definition in _module(path).definitions.values():
        for call in definition.decorator_list:
            if not isinstance(call, ast.Call) or last_name(call.func) != "register":
                continue
            words = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            where = f"{path}:{call.lineno}:{call.col_offset + 1}"
            if len(words) != 2 or len(call.args) != 2 or call.keywords:
                message = (
                    'write @register("kind", "name") with two literal strings; the file is read without running it'
                )
                raise InputError(Problem(message, where))
            found.append(Registered(words[0], words[1], definition.name, where))
    return found


# --------------------------------------------------------------------------------------------------------- the source

_Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True, eq=False)
class _Module:
    path: Path
    definitions: dict[str, _Definition]
    constants: dict[str, ast.expr]
    imports: dict[str, tuple[str, str]]


def _module(path: Path) -> _Module:
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path))) from None
    return _read_module(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=256)
def _read_module(path: Path, _mtime: int, _size: int) -> _Module:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        where = f"{path}:{error.lineno or 1}:{error.offset or 1}"
        raise InputError(Problem(f"not valid Python: {error.msg}", where)) from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(Problem(f"not valid Python: {error}", str(path))) from None
    definitions: dict[str, _Definition] = {}
    constants: dict[str, ast.expr] = {}
    imports: dict[str, tuple[str, str]] = {}
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            constants.update({target.id: node.value for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            constants[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
    return _Module(path, definitions, constants, imports)


def _constructor(
    module: _Module, definition: _Definition, seen: tuple[object, ...]
) -> tuple[_Module, ast.FunctionDef | None]:
    if isinstance(definition, ast.FunctionDef):
        return module, definition
    for item in definition.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return module, item
    if definition not in seen:
        for base in definition.bases:
            home, name = module, last_name(base.value if isinstance(base, ast.Subscript) else base)
            # Only the suite's own modules are followed: a base class of torch has no options.
            if name in module.imports and module.imports[name][0].split(".")[0] == "suite":
                imported, name = module.imports[name]
                source = module_path(imported)
                if source is None:
                    continue
                home = _module(source)
            parent = home.definitions.get(name)
            if parent is not None:
                owner, function = _constructor(home, parent, (*seen, definition))
                if function is not None:
                    return owner, function
    return module, None


def _option(module: _Module, argument: ast.arg, default: ast.expr | None) -> OptionInfo:
    if argument.arg in RESERVED:
        raise Unreadable(f"{argument.arg!r} has a meaning of its own in a task file; call it something else")
    if argument.annotation is None:
        raise Unreadable("has no type; annotate it, for example with a type of suite.spec.types")
    annotation = read_annotation(argument.annotation)
    if default is None:
        return OptionInfo(argument.arg, annotation, REQUIRED)
    value = _literal(module, default)
    if nested_kind(annotation) and isinstance(value, str):
        value = {"name": value}
    try:
        value = TypeAdapter(annotation, config=Strict.model_config).validate_python(value)
    except ValidationError:
        message = f"the default {shown(value)} is not {with_article(type_text(annotation))}"
        raise Unreadable(message, default) from None
    return OptionInfo(argument.arg, annotation, value)


def _literal(module: _Module, node: ast.expr) -> Any:
    source = module.constants.get(node.id, node) if isinstance(node, ast.Name) else node
    try:
        value = ast.literal_eval(source)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        message = "the default must be a literal, or a module's constant that is one"
        raise Unreadable(message, node) from None
    return _listed(value)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
