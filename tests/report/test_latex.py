"""The LaTeX tables: rectangular, ASCII, and with nothing in them that LaTeX would obey."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record
from test_leaderboard import TASKS, number, sample, seeds

from suite.report.latex import escape, latex
from suite.report.leaderboard import build


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)&", line.removesuffix(r" \\"))


def test_one_table_a_section_with_a_cell_a_column() -> None:
    records, published = sample()
    board = build(records, published, tasks=TASKS, show="all")
    text = latex(board)
    tables = re.findall(r"(?s)\\begin\{longtable\}\{@\{\}([lr]+)@\{\}\}(.*?)\\end\{longtable\}", text)
    sections = [section for section in board.sections if section.rows]
    assert len(tables) == len(sections) > 2
    for (columns, body), section in zip(tables, sections, strict=True):
        rows = [line for line in body.splitlines() if line.endswith(r" \\") and not line.startswith(r"\caption")]
        assert {len(cells(row)) for row in rows} == {len(columns)}
        assert len(rows) == len(section.rows) + 2, "the head stands twice, for the first page and the others"
        assert body.count(r"\toprule") == body.count(r"\midrule") == 2
        assert body.count(r"\bottomrule") == 1
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(labels)
    assert text.startswith("% Made by `suite report --write` from records and published numbers; do not edit.\n")
    assert text.endswith("\\end{longtable}\n")
    assert text.isascii()


def test_numbers_as_a_paper_prints_them() -> None:
    text = latex(build(seeds(55.9, 56.0, 56.1), [number(test=56.5)]))
    (row,) = [line for line in text.splitlines() if line.startswith("awd-lstm/mos-15 &")]
    assert row == (
        r"awd-lstm/mos-15 & 58.00 & 56.50 & Yang et al. 2018, table 1 & 58.00 $\pm$ 0.00 (3) & 56.00 $\pm$ 0.10 (3) & "
        r"$-$0.50 & 55.75 to 56.25 & inconclusive \\"
    )


def test_labels_of_a_record_stay_text() -> None:
    text = latex(build([make_record(head="\\input{x}%&_#[é]*$^~", dataset="a\nb")], []))
    assert (
        r"awd-lstm/\textbackslash{}input\{x\}\%\&\_\#{[}{[}U+00E9]]{*}\$\textasciicircum{}\textasciitilde{} &" in text
    )
    assert r"\caption{a b \textperiodcentered{} nt-asgd" in text


@given(st.text(max_size=30))
def test_any_text_is_balanced_ascii_without_commands_of_its_own(said: str) -> None:
    shown = escape(said)
    assert shown.isascii()
    assert "\n" not in shown
    names = "backslash|asciicircum|asciitilde|less|greater|bar|periodcentered"
    ours = rf"\\text({names})\{{\}}|\\[{{}}$&#%_]|\$\\(pm|Delta)\$|\\textsuperscript\{{\d\}}|\{{[\[*]\}}"
    left = re.sub(ours, "", shown)
    assert not set(left) & set("\\{}$&#%_^~<>|[*")


def test_an_empty_board_is_a_comment() -> None:
    assert latex(build([], [])).splitlines()[-1].startswith("%")
