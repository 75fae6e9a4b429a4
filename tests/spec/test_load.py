"""`extends:`: what merges, what replaces, and where errors are reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.errors import Problem
from suite.spec.load import in_order, load_tree, merge
from suite.spec.yaml_source import Node

trees = st.recursive(
    st.none() | st.integers() | st.text("ab"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("pqr"), inner, max_size=3),
    max_leaves=6,
)


@given(trees, trees)
def test_merge_is_deep_for_mappings_and_replaces_the_rest(base: object, over: object) -> None:
    def expected(low: object, high: object) -> object:
        if not (isinstance(low, dict) and isinstance(high, dict)):
            return high
        return {**low, **{key: expected(low[key], value) if key in low else value for key, value in high.items()}}

    assert merge(Node.of(base), Node.of(over)).plain() == expected(base, over)


def test_a_mapping_of_another_name_replaces() -> None:
    base = Node.of(
        {"optimizer": {"name": "sgd", "lr": 20, "weight_decay": 1}, "averaging": {"trigger": "epoch", "epoch": 3}}
    )
    over = Node.of({"optimizer": {"name": "adamw", "lr": 1}, "averaging": {"trigger": "non-monotone"}})
    assert merge(base, over).plain() == over.plain()
    assert merge(base, Node.of({"optimizer": {"name": "sgd", "lr": 1}})).plain()["optimizer"] == {
        "name": "sgd",
        "lr": 1,
        "weight_decay": 1,
    }


def test_a_child_lays_itself_on_its_parents(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "root.yaml").write_text("a: {x: 1, y: [1, 2]}\nheads: [m]\nabstract: true\n")
    (tmp_path / "base/mid.yaml").write_text("extends: ../root.yaml\na: {y: [3], z: 0}\nabstract: true\n")
    (tmp_path / "leaf.yaml").write_text("extends: base/mid.yaml\na: {z: null}\nhead: n\n")
    tree, problems = load_tree(tmp_path / "leaf.yaml")
    assert problems == []
    assert tree.plain() == {"extends": "base/mid.yaml", "a": {"x": 1, "y": [3], "z": None}, "head": "n"}
    assert tree.value["a"].value["x"].where == f"{tmp_path}/root.yaml:1:8"
    assert tree.value["a"].value["z"].where == f"{tmp_path}/leaf.yaml:2:8"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": "[1]"}, "a.yaml:1:1: expected a mapping of keys to values, got a list"),
        ({"a": ""}, "a.yaml:1:1: expected a mapping of keys to values, got nothing"),
        ({"a": "# only a comment"}, "a.yaml:1:1: expected a mapping of keys to values, got nothing"),
        ({"a": "word"}, "a.yaml:1:1: expected a mapping of keys to values, got 'word'"),
        ({"a": "extends: a.yaml"}, "a.yaml:1:10: extends: a file cannot extend itself: a.yaml -> a.yaml"),
        (
            {"a": "extends: b.yaml", "b": "x: 1\nextends: ./c.yaml", "c": "extends: a.yaml"},
            "c.yaml:1:10: extends: a file cannot extend itself: a.yaml -> b.yaml -> c.yaml -> a.yaml",
        ),
        (
            {"a": "extends: b.yaml", "b": "x: [1"},
            "b.yaml:1:6: not valid YAML: expected ',' or ']', but got '<stream end>' while parsing a flow sequence",
        ),
        ({"a": "extends: b.yaml", "b": "7"}, "b.yaml:1:1: expected a mapping of keys to values, got 7"),
    ],
)
def test_no_tree(
    files: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text)
    assert messages(load_tree, Path("a.yaml")) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("extends: gone.yaml", "a.yaml:1:10: extends: no such file: gone.yaml"),
        ("extends: sub/../gone.yaml", "a.yaml:1:10: extends: no such file: gone.yaml"),
        ("extends: .", "a.yaml:1:10: extends: no such file: ."),
        ("extends: [b.yaml]", "a.yaml:1:10: extends: expected one file name"),
        ("extends: 3", "a.yaml:1:10: extends: expected one file name"),
        ("extends: ''", "a.yaml:1:10: extends: expected one file name"),
    ],
)
def test_no_parent(line: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(line)
    assert [str(problem) for problem in load_tree(Path("a.yaml"))[1]] == [expected]


def test_a_long_line_of_parents_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for index in range(40):
        Path(f"{index}.yaml").write_text(f"extends: {index + 1}.yaml")
    assert messages(load_tree, Path("0.yaml")) == "16.yaml:1:10: extends: more than 16 files extend each other"


def test_problems_are_sorted_by_file_line_and_column() -> None:
    problems = [
        Problem("x", "b.yaml:1:1"),
        Problem("x", "a.yaml:10:1"),
        Problem("x", "a.yaml:9:12"),
        Problem("x", "a.yaml:9:2"),
    ]
    twice = [*problems, *problems]
    assert [problem.where for problem in in_order(twice, "b.yaml")] == [
        "b.yaml:1:1",
        "a.yaml:9:2",
        "a.yaml:9:12",
        "a.yaml:10:1",
    ]
