"""The registry: names to components, described and validated from their source, imported only to be built."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.errors import InputError, Problem, raise_all
from suite.spec.builtin import ADDED_LATER, BUILTIN, KINDS, Kind
from suite.spec.explain import choices, dotted, shown, validate, with_article
from suite.spec.plugins import PluginFile, Plugins, register, registered
from suite.spec.recipe import Strict
from suite.spec.run_spec import ComponentSpec
from suite.spec.signatures import REQUIRED, OptionInfo, Signature, module_path, read_signature
from suite.spec.yaml_source import Node

__all__ = [
    "BUILTIN",
    "KINDS",
    "REQUIRED",
    "ComponentInfo",
    "Kind",
    "OptionInfo",
    "Plugins",
    "create",
    "describe",
    "load",
    "names",
    "register",
    "resolve",
    "used_plugins",
    "using",
]

NO_PLUGINS = Plugins()

# A head builds its pointwise function itself and cannot be handed the plugins of the run it is part of.
_in_force: ContextVar[Plugins] = ContextVar("plugins", default=NO_PLUGINS)


@contextmanager
def using(plugins: Plugins) -> Iterator[None]:
    """Within this context :func:`load` and :func:`create` find these plugins without being handed them."""
    token = _in_force.set(plugins)
    try:
        yield
    finally:
        _in_force.reset(token)


@dataclass(frozen=True)
class ComponentInfo:
    """What ``suite list`` says of a component: where it lives, its one-line summary, its options."""

    kind: str
    name: str
    target: str
    summary: str
    signature: Signature

    @property
    def options(self) -> tuple[OptionInfo, ...]:
        """The options, in the order of the constructor."""
        return self.signature.options

    @property
    def model(self) -> type[Strict]:
        """A pydantic model of the options, by alias."""
        return self.signature.model


@dataclass(frozen=True)
class _Target:
    path: Path
    attribute: str
    shown: str
    plugin: PluginFile | None = None


def names(kind: str, plugins: Plugins = NO_PLUGINS) -> list[str]:
    """Every name of a kind: the suite's own, then plugins', then those registered while running.

    Raises:
        InputError: there is no such kind.
    """
    _check_kind(kind)
    return list(dict.fromkeys([*BUILTIN[kind], *plugins.names(kind), *registered(kind)]))


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f"unknown kind of component {kind!r}.{choices(kind, KINDS)}")


def _target(kind: str, name: str, plugins: Plugins) -> _Target:
    _check_kind(kind)
    if name in BUILTIN[kind]:
        module, attribute = BUILTIN[kind][name].split(":")
        path = module_path(module)
        if path is None:
            raise InputError(f"{kind} {name!r} is not part of this installation: no module {module}")
        return _Target(path, attribute, BUILTIN[kind][name])
    if found := plugins.find(kind, name):
        file, item = found
        return _Target(file.path, item.attribute, f"{file.name}:{item.attribute}", file)
    if known := registered(kind).get(name):
        file, item = known[1], known[1].components[0]
        return _Target(file.path, item.attribute, f"{file.name}:{item.attribute}", file)
    raise InputError(f"unknown {kind} {name!r}.{choices(name, names(kind, plugins))}")


def describe(kind: str, name: str, plugins: Plugins = NO_PLUGINS) -> ComponentInfo:
    """A component's summary and options, read from its source and not imported.

    Raises:
        InputError: the name is unknown, or the source cannot be understood (see ``read_signature``).
    """
    target = _target(kind, name, plugins)
    signature = read_signature(target.path, target.attribute)
    return ComponentInfo(kind, name, target.shown, signature.summary, signature)


def load(kind: str, name: str, plugins: Plugins | None = None) -> Any:
    """Import a component and return its class or function. ``plugins`` are those in force (see :func:`using`) if None.

    Raises:
        InputError: the name is unknown, or its plugin cannot be imported.
    """
    plugins = _in_force.get() if plugins is None else plugins
    target = _target(kind, name, plugins)
    if name in BUILTIN[kind]:
        return getattr(importlib.import_module(target.shown.split(":")[0]), target.attribute)
    if plugins.find(kind, name) and target.plugin is not None:
        return getattr(target.plugin.load(), target.attribute)
    return registered(kind)[name][0]


def create(
    kind: str,
    component: ComponentSpec | Mapping[str, Any] | str,
    /,
    *wired: Any,
    plugins: Plugins | None = None,
    **wired_by_name: Any,
) -> Any:
    """Build a component: ``wired`` is what the suite passes (sizes, data), the options come from ``component``.

    ``component`` is a :class:`ComponentSpec`, a ``{"name": ..., option: value}`` mapping or a bare name; options left
    out take their defaults.

    Raises:
        InputError: the name or an option is wrong.
    """
    plugins = _in_force.get() if plugins is None else plugins
    plain = component.as_dict() if isinstance(component, ComponentSpec) else component
    found, problems = resolve(kind, Node.of(plain), plugins)
    raise_all(problems)
    assert found is not None
    made = load(kind, found.name, plugins)
    with using(plugins):
        return made(*wired, **wired_by_name, **found.options)


def resolve(
    kind: str, node: Node, plugins: Plugins, path: str = "", extra_keys: tuple[str, ...] = ()
) -> tuple[ComponentSpec | None, list[Problem]]:
    """A component with every option written in, from a bare name or a mapping; or None and every problem.

    ``extra_keys`` of the mapping are the caller's affair; ``path`` is the key of ``node`` in its file. Numbers are put
    in one form (``1`` for a float option becomes ``1.0``), so that equal settings give equal run keys. A name that may
    belong to a plugin nobody could read is no further problem.
    """
    if isinstance(node.value, str):
        name, name_node, options = node.value, node, Node({}, node.mark)
    elif isinstance(node.value, dict):
        if "name" not in node.value:
            return None, [Problem(f"missing 'name'; expected the name of {with_article(kind)}", node.where, path)]
        name_node = node.value["name"]
        name, options, path_of_name = name_node.value, node.without("name", *extra_keys), dotted(path, "name")
        if not isinstance(name, str):
            text = f"expected the name of {with_article(kind)}, got {shown(name_node.plain())}"
            return None, [Problem(text, name_node.where, path_of_name)]
    else:
        given = shown(node.plain())
        text = f"expected the name of {with_article(kind)}, or a mapping with its name and options, got {given}"
        return None, [Problem(text, node.where, path)]
    try:
        target = _target(kind, name, plugins)
    except InputError as error:
        if not plugins.complete:
            return None, []
        at = path if name_node is node else dotted(path, "name")
        return None, [Problem(problem.message, name_node.where, at) for problem in error.problems]
    try:
        signature = read_signature(target.path, target.attribute)
    except InputError as error:
        return None, list(error.problems)
    later = ADDED_LATER.get((kind, name), frozenset()) if target.plugin is None else frozenset()
    return _resolve_options(name, signature, options, plugins, path, ("name", *extra_keys), later)


def _resolve_options(
    name: str,
    signature: Signature,
    node: Node,
    plugins: Plugins,
    path: str,
    extra_keys: tuple[str, ...],
    added_later: frozenset[str],
) -> tuple[ComponentSpec | None, list[Problem]]:
    model, problems = validate(signature.model, node, path, extra_keys)
    resolved = model.model_dump(mode="json", by_alias=True) if model is not None else {}
    for option in signature.options:
        if option.nested is None:
            continue
        given = node.value.get(option.name)
        value = given if given is not None else Node.of(None if option.default is REQUIRED else option.default)
        if given is None and option.default is REQUIRED:
            continue  # reported as missing
        if value.value is None and option.nullable:
            continue
        inner, more = resolve(option.nested, value, plugins, dotted(path, option.name))
        problems += more
        resolved[option.name] = inner.as_dict() if inner is not None else None
    if problems:
        return None, problems
    kept = {
        option.name: positive_zero(resolved[option.name])
        for option in signature.options
        if option.name not in added_later or resolved[option.name] != option.default
    }
    return ComponentSpec(name, kept), []


def positive_zero(value: Any) -> Any:
    """A plain JSON value with every -0.0 written 0.0: equal settings must not name two runs."""
    if isinstance(value, dict):
        return {key: positive_zero(item) for key, item in value.items()}
    if isinstance(value, list):
        return [positive_zero(item) for item in value]
    return 0.0 if isinstance(value, float) and value == 0 else value


def used_plugins(components: Mapping[str, tuple[ComponentSpec, ...]], plugins: Plugins) -> dict[str, PluginFile]:
    """The plugin files some resolved components come from, nested ones included, by name."""
    used: dict[str, PluginFile] = {}
    for kind, specs in components.items():
        for spec in specs:
            target = _target(kind, spec.name, plugins)
            if target.plugin is not None:
                used[target.plugin.name] = target.plugin
            for option in read_signature(target.path, target.attribute).options:
                inner = spec.options.get(option.name)
                if option.nested is not None and inner is not None:
                    nested = ComponentSpec(inner["name"], {k: v for k, v in inner.items() if k != "name"})
                    used |= used_plugins({option.nested: (nested,)}, plugins)
    return dict(sorted(used.items()))
