"""The table of injected faults: golden text, a plain sentence without a file, and a clear error for a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from suite.errors import InputError
from suite.report.pages import Report
from suite.report.promises import NOT_COUNTED, promises_markdown

ROWS = [
    {"fault": "full disk", "how": "the n-th write fails | n = 1, 2, ...", "tried": 1200, "lost": 0},
    {"fault": "kill", "how": "SIGKILL", "tried": 200, "lost": 1},
    {"fault": "never injected", "how": "nowhere", "tried": 0, "lost": 0},
]

GOLDEN = r"""Each fault as often as `make torture` injects it. Lost: a finished result, work from before the last checkpoint, or a promise otherwise not kept, in that many of the tries.

| fault     | how it is injected                    |   tried |   lost |
|:----------|:--------------------------------------|--------:|-------:|
| full disk | the n-th write fails \| n = 1, 2, ... |   1,200 |      0 |
| kill      | SIGKILL                               |     200 |      1 |
| all       |                                       |   1,400 |      1 |
"""  # noqa: E501


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "torture.json"
    path.write_text(json.dumps({"rows": ROWS}))
    return path


def test_the_table_of_faults(kept: Path) -> None:
    assert promises_markdown(kept) == GOLDEN


def test_without_faults_it_says_how_to_count_some(tmp_path: Path, kept: Path) -> None:
    assert promises_markdown(tmp_path / "absent.json") == NOT_COUNTED
    kept.write_text(json.dumps({"rows": ROWS[2:]}))
    assert promises_markdown(kept) == NOT_COUNTED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "{0}: invalid JSON: EOF while parsing an object at line 1 column 1"),
        ('{"rows": [{"fault": "x", "how": "y", "tried": -1}]}',
         "{0}: rows.0.tried: input should be greater than or equal to 0\n{0}: rows.0.lost: required field is missing"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_table(kept: Path, text: str, message: str) -> None:
    kept.write_text(text)
    with pytest.raises(InputError) as caught:
        promises_markdown(kept)
    assert str(caught.value) == message.replace("{0}", str(kept))


def test_a_page_with_a_place_for_it_is_given_it(kept: Path) -> None:
    readme = kept.with_name("README.md")
    readme.write_text(
        "<!-- leaderboard:begin -->\n<!-- leaderboard:end -->\nabove\n<!-- torture:begin -->\n<!-- torture:end -->\n"
    )
    assert list(Report(kept.parent, [], [], {}, []).write([readme]))
    assert readme.read_text().endswith(f"above\n<!-- torture:begin -->\n{GOLDEN.strip()}\n<!-- torture:end -->\n")
