"""The entries of a task: a component under the label that tables and filters use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from suite.errors import Problem
from suite.spec.components import resolve
from suite.spec.explain import dotted, shown
from suite.spec.plugins import Plugins
from suite.spec.run_spec import ComponentSpec, canonical_json
from suite.spec.yaml_source import Node


@dataclass(frozen=True)
class Entry:
    """A resolved component and its label."""

    label: str
    spec: ComponentSpec

    @cached_property
    def key(self) -> str:
        """Equal for equal components, whatever their labels."""
        return canonical_json(self.spec.as_dict())


def read_entry(kind: str, node: Node, plugins: Plugins, path: str) -> tuple[Entry | None, list[Problem]]:
    """An entry from a bare name or a mapping of ``name``, ``label`` and options; or None and every problem in it."""
    spec, problems = resolve(kind, node, plugins, path, ("label",))
    label = node.value.get("label") if isinstance(node.value, dict) else None
    if label is not None and not _usable(label.value):
        text = f"expected a label of up to 60 letters, digits, spaces and '-_.+=,()', got {shown(label.plain())}"
        problems = [*problems, Problem(text, label.where, dotted(path, "label"))]
    if spec is None or problems:
        return None, problems
    return Entry(default_label(kind, spec) if label is None else label.value, spec), []


def default_label(kind: str, spec: ComponentSpec) -> str:
    """The component's name; a head is called by what sets it apart: ``plif``, ``mos-15``, ``mos-15+sigsoftmax``."""
    if kind != "head":
        return spec.name
    nested = spec.options.get("pointwise")
    pointwise = nested["name"] if isinstance(nested, dict) else "identity"
    if spec.name == "softmax":
        return str(spec.name if pointwise == "identity" else pointwise)
    experts = spec.options.get("experts")
    name = spec.name if experts is None else f"{spec.name}-{experts}"
    return name if pointwise == "identity" else f"{name}+{pointwise}"


def _usable(label: object) -> bool:
    """Labels stand in tables, paths and globs."""
    if not isinstance(label, str) or label != label.strip() or not 0 < len(label) <= 60:
        return False
    return all(c.isalnum() or c in "-_.+=,() " for c in label)
