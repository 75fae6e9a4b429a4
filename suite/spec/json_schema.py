"""The JSON Schema (2020-12) of task files, so that an editor completes keys and marks mistakes while they are typed."""

from __future__ import annotations

from typing import Any

from suite.spec.components import KINDS, NO_PLUGINS, REQUIRED, ComponentInfo, Plugins, describe, names
from suite.spec.matrix import AXES, Matrix
from suite.spec.recipe import Recipe
from suite.spec.task import Deviation, TaskFile

_REFERENCES = "#/$defs/{model}"


def task_json_schema(plugins: Plugins = NO_PLUGINS) -> dict[str, Any]:
    """The schema of a task file, with every component known now and its options.

    It accepts whatever :func:`suite.spec.task.load_task` accepts as far as one file can be judged alone: a file that
    extends another, or is abstract, may leave out keys.

    Raises:
        InputError: the source of a component cannot be understood.
    """
    schema = TaskFile.model_json_schema(ref_template=_REFERENCES)
    definitions: dict[str, Any] = schema.pop("$defs", {})
    properties = schema["properties"]
    for key, model in (("recipe", Recipe), ("matrix", Matrix)):
        part = model.model_json_schema(ref_template=_REFERENCES)
        definitions |= part.pop("$defs", {})
        definitions[model.__name__] = part
        properties[key] = {"$ref": f"#/$defs/{model.__name__}", "description": properties[key]["description"]}
    for kind in KINDS:
        definitions[kind] = _component(kind, plugins)
    included = definitions["Include"]["properties"]
    for axis in AXES:
        reference = {"$ref": f"#/$defs/{axis}"}
        for key in (axis, f"{axis}s"):
            several = {"type": "array", "items": reference, "minItems": 1}
            properties[key] = {"anyOf": [reference, several], "description": properties[key]["description"]}
        included[axis] = {
            "anyOf": [{"type": "string"}, reference],
            "description": "a label of this task, or a component",
        }
    definitions["Deviation"] = Deviation.model_json_schema(ref_template=_REFERENCES)
    deviation = {"$ref": "#/$defs/Deviation"}
    named = {"type": "object", "additionalProperties": {"anyOf": [deviation, {"type": "null"}]}}
    properties["deviations"] |= {"anyOf": [{"type": "array", "items": deviation}, named]}
    properties["stages"] |= {"type": "array", "items": {"$ref": "#/$defs/stage"}, "minItems": 1}
    properties["seeds"] |= {"minItems": 1, "uniqueItems": True}
    required = schema.pop("required")
    either = [{"oneOf": [{"required": [axis]}, {"required": [f"{axis}s"]}]} for axis in AXES]
    base = {"required": ["abstract"], "properties": {"abstract": {"const": True}}}
    whole = {"not": {"anyOf": [{"required": ["extends"]}, base]}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_untitled(schema),
        "title": "task",
        "description": "What to run: datasets x encoders x heads x seeds under one recipe.",
        "if": whole,
        "then": {"required": required, "allOf": either},
        "$defs": {name: _untitled(definition) for name, definition in sorted(definitions.items())},
    }


def _component(kind: str, plugins: Plugins) -> dict[str, Any]:
    infos = [describe(kind, name, plugins) for name in names(kind, plugins)]
    known = [info.name for info in infos]
    lines = "; ".join(f"{info.name}: {info.summary}" for info in infos)
    bare = [info.name for info in infos if all(option.default is not REQUIRED for option in info.options)]
    mapping = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": known}},
        "allOf": [
            {"if": {"properties": {"name": {"const": info.name}}, "required": ["name"]}, "then": _options(kind, info)}
            for info in infos
        ],
    }
    return {"description": lines, "anyOf": [{"enum": bare}, mapping]}


def _options(kind: str, info: ComponentInfo) -> dict[str, Any]:
    schema = info.model.model_json_schema(by_alias=True, ref_template=_REFERENCES)
    properties: dict[str, Any] = {"name": {"const": info.name}}
    if kind in AXES:
        properties["label"] = {"type": "string", "minLength": 1, "maxLength": 60, "description": "name in tables"}
    for option in info.options:
        own = schema["properties"][option.name]
        if option.nested is not None:
            default = {"default": own["default"]} if "default" in own else {}
            nested = {"$ref": f"#/$defs/{option.nested}"}
            own = (nested if not option.nullable else {"anyOf": [nested, {"type": "null"}]}) | default
        properties[option.name] = {"description": option.type, **own}
    return {
        "description": info.summary,
        "properties": properties,
        "required": ["name", *schema.get("required", [])],
        "additionalProperties": False,
    }


def _untitled(value: Any) -> Any:
    """Without the titles pydantic makes out of field names; an option called ``title`` is a mapping and stays."""
    if isinstance(value, dict):
        return {key: _untitled(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))}
    return [_untitled(item) for item in value] if isinstance(value, list) else value
