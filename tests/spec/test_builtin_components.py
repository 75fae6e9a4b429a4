"""Every component of the suite says statically what it is when imported."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from suite.spec.components import BUILTIN, REQUIRED, describe, load

ALL = [(kind, name) for kind, table in BUILTIN.items() for name in table]


def plain(value: Any) -> Any:
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_static_options_equal_the_imported_signature(kind: str, name: str) -> None:
    info = describe(kind, name)
    parameters = inspect.signature(load(kind, name)).parameters.values()
    expected = {}
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY:
            default = REQUIRED if parameter.default is parameter.empty else plain(parameter.default)
            expected[parameter.name] = default
    found = {}
    for option in info.options:
        bare = option.nested and option.default is not REQUIRED and option.default is not None
        found[option.name] = option.default["name"] if bare and set(option.default) == {"name"} else option.default
    for name_, default in expected.items():
        if isinstance(default, dict) and set(default) == {"name"}:
            expected[name_] = default["name"]
    assert found == expected


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_the_summary_is_a_sentence(kind: str, name: str) -> None:
    summary = describe(kind, name).summary
    assert summary[:1].isupper() or summary[:1].islower()
    assert summary.endswith(".")
