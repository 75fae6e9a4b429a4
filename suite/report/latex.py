"""The leaderboard as LaTeX: one booktabs table a section, for a paper's appendix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from suite.report import formatting
from suite.report.columns import Column, columns
from suite.report.leaderboard import Leaderboard
from suite.report.rows import Section
from suite.report.table import fit, heading

# Characters of a row that fit on a landscape page in small type.
_WIDTH = 150
# Costs are a table of their own, and a record is named by the whole leaderboard.
_LEFT_OUT = frozenset({"record", "precision", "device", "peak of", "peak MiB", "s/epoch", "J/epoch"})
_HEAD = r"""% Made by `suite report --write` from records and published numbers; do not edit.
% Needs \usepackage{booktabs,longtable}. One table a dataset, protocol and stage: take those you need.
"""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the \\ of the row before, these two would be its options.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "·": r"\textperiodcentered{}",
    **{digit: rf"\textsuperscript{{{place}}}" for place, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}


def latex(board: Leaderboard) -> str:
    """Every section as a ``longtable`` in ASCII; smoke and short runs compare with nothing and are left out."""
    tables = ["\n".join(_table(section)) for section in board.sections if section.rows]
    return "\n\n".join([_HEAD.rstrip("\n"), *tables]) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, whatever the engine: ASCII, no command, brace or comment of its own."""
    return "".join(_character(character) for character in formatting.clean(text))


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    # Engines differ in what else they know, and a character that stops the run helps nobody.
    return character if character.isascii() else f"{{[}}U+{ord(character):04X}]"


def _table(section: Section) -> Iterator[str]:
    kept = fit([column for column in columns(section) if column.title not in _LEFT_OUT], _WIDTH)
    title = escape(heading(section))
    label = re.sub(r"[^a-z0-9]+", "-", "-".join(section.key).lower()).strip("-")
    yield rf"\begin{{longtable}}{{@{{}}{''.join('r' if column.right else 'l' for column in kept)}@{{}}}}"
    yield rf"\caption{{{title}}}\label{{tab:{label}}}\\"
    yield r"\toprule"
    yield _line([escape(column.title) for column in kept])
    yield r"\midrule"
    yield r"\endfirsthead"
    yield r"\toprule"
    yield _line([escape(column.title) for column in kept])
    yield r"\midrule"
    yield r"\endhead"
    yield r"\bottomrule"
    yield r"\endlastfoot"
    for place in range(len(section.rows)):
        yield _line([_cell(column, place) for column in kept])
    yield r"\end{longtable}"


def _cell(column: Column, place: int) -> str:
    text = column.cells[place]
    if text == formatting.DASH:
        return "--"
    # A hyphen before a number is a minus.
    return re.sub(r"^-(?=[\d.])", "$-$", escape(text)) if column.right else escape(text)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
