"""YAML 1.2 with places; everything hostile is refused with a place and a reason."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from suite.errors import InputError
from suite.spec.yaml_source import MAX_BYTES, Mark, parse, read_text, scalar


def refusals(text: str) -> list[str]:
    try:
        return [str(problem) for problem in parse(text, "f.yaml")[1]]
    except InputError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("on", "on"),
        ("yes", "yes"),
        ("2018-01-01", "2018-01-01"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("~", None),
        ("", None),
        ("null", None),
        ("True", True),
        ("tRue", "tRue"),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("1e", "1e"),
        (".", "."),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    result = scalar(text)
    assert result == value
    assert type(result) is type(value)


def test_quoted_text_stays_text() -> None:
    node, problems = parse("a: '1'\nb: \"true\"\nc: |\n  null\n", "f.yaml")
    assert (node.plain(), problems) == ({"a": "1", "b": "true", "c": "null\n"}, [])


def test_every_key_and_value_knows_its_place() -> None:
    node, _ = parse("a: 1\nb:\n  - x\n  - {c:   y}\n", "f.yaml")
    item = node.value["b"].value[1]
    assert node.keys["b"] == Mark("f.yaml", 2, 1)
    assert (item.where_key("c"), item.value["c"].where) == ("f.yaml:4:6", "f.yaml:4:11")


# Control characters are refused (tests/spec/test_hostile_tasks.py).
NOT_WRITTEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=NOT_WRITTEN, include_characters="\t\n"))


def ruamel_reads(text: str, value: object) -> bool:
    """Not all that it writes: "?0" comes back as a key, and {"a": {"a": ":0"}} not at all."""
    try:
        return bool(YAML(typ="safe", pure=True).load(text) == value)
    except YAMLError:
        return False


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcé", min_size=1), inner, max_size=3),
        max_leaves=8,
    )
)
@example({"a": {"a": ":0"}})
@example("?0")
def test_what_ruamel_writes_reads_back(value: object) -> None:
    buffer = io.StringIO()
    YAML(typ="safe", pure=True).dump(value, buffer)
    text = buffer.getvalue()
    assume(ruamel_reads(text, value))
    node, problems = parse(text, "f.yaml")
    assert (node.plain(), problems) == (value, [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f.yaml:3:1: duplicate key 'a', first given on line 1"]),
        (
            "a: &x [1]\nb: *x\n",
            [
                "f.yaml:1:4: anchors (&x) are not allowed; write the value out, or use `extends:`",
                "f.yaml:2:4: aliases (*x) are not allowed; write the value out, or use `extends:`",
            ],
        ),
        ("a: !!python/object/apply:os.system [ls]\n", ["f.yaml:1:4: tags are not allowed; write a plain value"]),
        ("a: !x y\n", ["f.yaml:1:4: tags are not allowed; write a plain value"]),
        ("? [a]\n: 1\n", ["f.yaml:1:3: a key must be text"]),
        (
            "a: [1, 2\n",
            ["f.yaml:2:1: not valid YAML: expected ',' or ']', but got '<stream end>' while parsing a flow sequence"],
        ),
        ("a: b: c\n", ["f.yaml:1:5: not valid YAML: mapping values are not allowed here"]),
        (
            "a: 1\n\t- x\n",
            [
                "f.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token "
                "while scanning for the next token"
            ],
        ),
        ("a: 1\n---\nb: 2\n", ["f.yaml:2:1: a second document starts here; one file holds one task"]),
        ("%YAML 1.1\n---\na: 1\n", ["f.yaml:2:1: task files are YAML 1.2; remove the %YAML line"]),
        ("%YAML 1.3\n---\na: 1\n", ["f.yaml:1:1: not valid YAML: version minor part can only be 2 or 1, got (1, 3)"]),
        ('a: "\\ud800"\n', ["f.yaml:1:4: text holds half of a surrogate pair, which no file can store"]),
        ("a: " + "9" * 5000, ["f.yaml:1:4: a number of 5,000 digits"]),
        ("[" * 40, ["f.yaml:1:33: nested deeper than 32 levels"]),
        ("- " * 500_000, ["f.yaml:1:65: nested deeper than 32 levels"]),
        ("[" + "1," * 30_000 + "]", ["f.yaml:1:40000: more than 20,000 values; is it a task file?"]),
    ],
)
def test_refused_with_place_and_reason(text: str, expected: list[str]) -> None:
    assert refusals(text) == expected


def test_an_alias_bomb_is_refused_without_being_expanded() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    found = refusals("\n".join(lines))
    assert len(found) == 30 + 29 * 9
    assert found[1] == "f.yaml:2:5: anchors (&a1) are not allowed; write the value out, or use `extends:`"


class TestReading:
    def refused(self, path: Path) -> str:
        with pytest.raises(InputError) as caught:
            read_text(path, path.name)
        return str(caught.value)

    def test_a_byte_order_mark_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\n")
        assert parse(read_text(tmp_path / "x.yaml", "x.yaml"), "x.yaml")[0].plain() == {"a": 1}

    def test_absent(self, tmp_path: Path) -> None:
        assert self.refused(tmp_path / "x.yaml") == "x.yaml: cannot be read: No such file or directory"

    def test_a_folder_or_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        assert self.refused(tmp_path / "pipe") == "pipe: not a regular file; give a YAML file"
        assert self.refused(tmp_path / "folder") == "folder: not a regular file; give a YAML file"

    def test_a_name_no_file_can_have(self, tmp_path: Path) -> None:
        assert self.refused(tmp_path / "a\0b") == "a b: cannot be read: not a file name"

    def test_too_large(self, tmp_path: Path) -> None:
        (tmp_path / "x.yaml").write_bytes(b"#" * MAX_BYTES)
        assert len(read_text(tmp_path / "x.yaml", "x.yaml")) == MAX_BYTES
        (tmp_path / "x.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
        assert (
            self.refused(tmp_path / "x.yaml") == "x.yaml: larger than the limit of 1,000,000 bytes; is it a task file?"
        )

    def test_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "x.yaml").write_bytes("a: 1\nb: é".encode() + b"\xff")
        assert self.refused(tmp_path / "x.yaml") == "x.yaml:2:5: byte 0xff is not UTF-8; save the file as UTF-8"
