"""Whatever is in a task file, the answer is a task or an InputError, quickly."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_workspace import PLUGIN, TASK

from suite.errors import InputError
from suite.spec.plan import expand
from suite.spec.task import load_task

RICH = (
    TASK
    + """\
recipe:
  optimizer: {name: adamw, lr: 1e-3}
  averaging: {trigger: non-monotone, patience: 5}
  budget: {epochs: 3}
matrix:
  exclude: [{head: "mix*", seed: 2}]
  include: [{dataset: toy, encoder: rnn, head: {name: mix, experts: 5}, seeds: [4], recipe: {clip: 0.25}}]
"""
)
TOKENS = [
    "&a ",
    "*a",
    "!!python/name:os.system ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "\n",
    "  ",
    "- ",
    "null",
    "true",
    ".nan",
    "-0.0",
    "1e999",
    "9" * 400,
]
TOKENS += [
    '"\\ud800"',
    "\x00",
    "\t",
    "\ufeff",
    "é",
    "extends: x.yaml\n",
    "'",
    '"',
    "#",
    "---\n",
    "%YAML 1.1\n",
    "? ",
    "| ",
    "mix",
    "<<: ",
    "heads",
    "name",
    "9" * 5000,
]


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as name:
        before = os.getcwd()
        os.chdir(name)
        Path("plugins").mkdir()
        Path("tasks").mkdir()
        Path("plugins/mine.py").write_text(PLUGIN)
        try:
            yield
        finally:
            os.chdir(before)


def loads_or_refuses(text: bytes) -> None:
    path = Path("tasks/x.yaml")
    path.write_bytes(text)
    # Processor time: other work on the machine must not decide, though on the same cores it doubles this too. A second
    # or two is what the largest take; what is not linear takes minutes.
    start = time.process_time()
    with contextlib.suppress(InputError):
        for spec in expand(load_task(path)):
            assert len(spec.run_key) == 64
    assert time.process_time() - start < 10


def test_the_unchanged_file_is_good() -> None:
    Path("tasks/x.yaml").write_text(RICH)
    assert len(expand(load_task("tasks/x.yaml"))) == 4


edits = st.lists(
    st.tuples(st.integers(0, len(RICH)), st.integers(0, 12), st.sampled_from(TOKENS) | st.text(max_size=3)),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(edits)
def test_random_edits(changes: list[tuple[int, int, str]]) -> None:
    text = RICH
    for start, length, put in changes:
        text = text[:start] + put + text[start + length :]
    loads_or_refuses(text.encode("utf-8", "surrogatepass"))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_value_anywhere(data: st.DataObject) -> None:
    lines = RICH.splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    key = lines[index].split(":")[0]
    value = data.draw(
        st.sampled_from(
            [
                "null",
                "[]",
                "{}",
                "[[]]",
                "{a: [1]}",
                "-1",
                "0",
                "1.5",
                "true",
                "'x'",
                ".inf",
                "[null]",
                "{name: null}",
                "[{name: {}}]",
                "9" * 400,
            ]
        )
    )
    lines[index] = f"{key}: {value}\n"
    loads_or_refuses("".join(lines).encode())


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    loads_or_refuses(raw)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 900_000,
        "a: " * 300_000,
        "- " * 450_000,
        "a: &a [" + "x," * 100_000 + "]",
        "\n".join(f"a{i}: 1" for i in range(80_000)),
        "a: '" + "x" * 900_000 + "'",
        "#" * 10_000_000,
        "a: |\n" + " x\n" * 300_000,
    ],
    ids=lambda text: text[:8],
)
def test_large_files(text: str) -> None:
    loads_or_refuses(text.encode())


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\x00", "\x9b", "\u202e", "\u2066", "\u2028"])
def test_no_title_gives_a_terminal_orders_or_turns_letters_around(character: str) -> None:
    path = Path("tasks/x.yaml")
    path.write_text(RICH.replace("title: ", f'title: "a\\u{ord(character):04x}b" # '))
    with pytest.raises(InputError) as caught:
        load_task(path)
    line = next(i for i, line in enumerate(RICH.splitlines(), 1) if line.startswith("title: "))
    said = f"tasks/x.yaml:{line}:8: text holds the control character U+{ord(character):04X}; take it out"
    assert str(caught.value) == said


def test_a_key_of_any_length_is_told_in_short() -> None:
    path = Path("tasks/x.yaml")
    path.write_text(RICH + f"? {'x' * 100_000}\n: 1\n")
    with pytest.raises(InputError) as caught:
        load_task(path)
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize("key", ["\ud800", "\x1b[2J"])
def test_a_key_that_no_file_can_store_is_refused_anywhere(key: str) -> None:
    path = Path("tasks/x.yaml")
    escaped = "".join(f"\\u{ord(character):04x}" for character in key)
    path.write_text(RICH.replace("{name: mix, experts: 5}", f'{{name: mix, experts: 5, "{escaped}": 1}}'))
    with pytest.raises(InputError) as caught:
        load_task(path)
    assert [problem.message.split(";")[0].split(",")[0] for problem in caught.value.problems] == [
        "text holds half of a surrogate pair" if key == "\ud800" else "text holds the control character U+001B"
    ]
