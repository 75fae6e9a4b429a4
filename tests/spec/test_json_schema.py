"""The schema for editors agrees with what `load_task` takes and refuses."""

# ruff: noqa: E501  # task files on one line

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from task_workspace import Workspace

from suite.spec.components import BUILTIN, Plugins, describe
from suite.spec.json_schema import task_json_schema
from suite.spec.load import load_tree

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def fits(value: Any, schema: Any, root: dict[str, Any]) -> bool:
    """The part of JSON Schema 2020-12 that the task schema uses; any other keyword is an error."""
    if isinstance(schema, bool):
        return schema

    def ok(part: Any, of: Any = value) -> bool:
        return fits(of, part, root)

    known = schema.get("properties", {})
    checks = {
        "$ref": lambda ref: ok(root["$defs"][ref.removeprefix("#/$defs/")]),
        "type": lambda name: is_type(value, name),
        "enum": lambda values: any(type(item) is type(value) and item == value for item in values),
        "const": lambda item: type(item) is type(value) and item == value,
        "anyOf": lambda parts: any(map(ok, parts)),
        "oneOf": lambda parts: sum(map(ok, parts)) == 1,
        "allOf": lambda parts: all(map(ok, parts)),
        "not": lambda part: not ok(part),
        "if": lambda part: ok(schema.get("then", True) if ok(part) else True),
        "required": lambda names: not isinstance(value, dict) or all(name in value for name in names),
        "properties": lambda parts: (
            not isinstance(value, dict) or all(ok(p, value[k]) for k, p in parts.items() if k in value)
        ),
        "additionalProperties": lambda part: (
            not isinstance(value, dict) or all(ok(part, value[k]) for k in value if k not in known)
        ),
        "items": lambda part: not isinstance(value, list) or all(ok(part, item) for item in value),
        "minItems": lambda least: not isinstance(value, list) or len(value) >= least,
        "uniqueItems": lambda _: not isinstance(value, list) or len({json.dumps(item) for item in value}) == len(value),
        "minLength": lambda least: not isinstance(value, str) or len(value) >= least,
        "maxLength": lambda most: not isinstance(value, str) or len(value) <= most,
        "minimum": lambda least: not is_type(value, "number") or value >= least,
        "maximum": lambda most: not is_type(value, "number") or value <= most,
        "exclusiveMinimum": lambda least: not is_type(value, "number") or value > least,
    }
    silent = {"$schema", "$defs", "title", "description", "default", "then", "discriminator"}
    return all(checks[keyword](argument) for keyword, argument in schema.items() if keyword not in silent)


def is_type(value: Any, name: str) -> bool:
    if name in ("number", "integer"):
        return isinstance(value, int if name == "integer" else (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


@pytest.fixture
def check(workspace: Workspace) -> Any:
    schema = task_json_schema(Plugins.of(workspace.task().plugins.files.values()))
    return lambda text: fits(load_tree(workspace.write("tasks/y.yaml", text))[0].plain(), schema, schema)


GOOD = [
    {},
    {"deviations": "[{what: a, why: b, effect: c}]"},
    {"deviations": "{clip: {what: a, why: b, effect: c}, budget: null}"},
    {"heads": "[flat, {name: mix, experts: 2, label: b, pointwise: {name: curve, knots: 3}}]"},
    {"heads": "{name: softmax, pointwise: sigsoftmax}"},
    {"recipe": "{optimizer: {name: adamw, lr: 1}, averaging: {trigger: epoch}, clip: null}"},
    {
        "matrix": "{exclude: [{head: f*, seed: 1}], include: [{dataset: toy, encoder: {name: rnn, label: r, drop: 1}, head: flat, seeds: [3]}]}"
    },
]
BAD = [
    {"deviations": "[null]"},
    {"deviations": "{clip: {what: a, why: b}}"},
    {"title": ""},
    {"version": "0"},
    {"seeds": "[1, 1]"},
    {"seeds": ""},
    {"heads": "[]"},
    {"heads": "[mix]"},
    {"heads": "[{name: mix}]"},
    {"heads": "[{name: flat, experts: 2}]"},
    {"heads": "[{name: mix, experts: 2, pointwise: {name: curve, label: x}}]"},
    {"heads": "[nobody]"},
    {"head": "flat"},
    {"encoder": "{name: rnn, drop: true}"},
    {"dataset": "{name: toy, p: 2}"},
    {"recipe": "{optimizer: {name: sgdd}}"},
    {"recipe": "{clip: 0}"},
    {"stages": "[{name: fit, label: x}]"},
    {"matrix": "{exclude: [{hed: x}]}"},
    {"titel": "x"},
]


@pytest.mark.parametrize("lines", GOOD)
def test_takes_what_a_task_may_say(lines: dict[str, str], workspace: Workspace, check: Any) -> None:
    text = workspace.changed(**lines)
    workspace.task(text)
    assert check(text)


@pytest.mark.parametrize("lines", BAD)
def test_refuses_what_a_task_may_not_say(lines: dict[str, str], workspace: Workspace, check: Any) -> None:
    text = workspace.changed(**lines)
    assert workspace.errors(text)
    assert not check(text)


def test_a_file_that_extends_may_leave_keys_out(check: Any) -> None:
    assert check("extends: base.yaml\nversion: 2\n")
    assert check("abstract: true\n")
    assert not check("abstract: false\n")


def test_every_component_and_option_is_there_with_its_description() -> None:
    schema = task_json_schema()
    text = json.dumps(schema, allow_nan=False)
    assert set(re.findall(r"#/\$defs/([\w-]+)", text)) == set(schema["$defs"])
    for kind, table in BUILTIN.items():
        branches = {
            item["then"]["properties"]["name"]["const"]: item["then"]
            for item in schema["$defs"][kind]["anyOf"][1]["allOf"]
        }
        assert list(branches) == list(table)
        for name, branch in branches.items():
            info = describe(kind, name)
            assert branch["description"] == info.summary
            assert {option.name for option in info.options} == set(branch["properties"]) - {"name", "label"}
