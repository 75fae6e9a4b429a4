"""What can go wrong, said once and clearly: what, where (file:line:column), what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

_LONGEST = 4_000


def printable(text: str) -> str:
    """Text that gives a terminal no orders: what it would obey, line ends aside, becomes a space."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def first_line(error: BaseException) -> str:
    """What an exception says, for a message of one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"


@dataclass(frozen=True)
class Problem:
    """One thing the user can mend.

    ``where`` is ``file:line:column``, a path, or empty; ``path`` the dotted key inside the file, or empty. As text it
    is bounded and printable, since it may quote what a stranger wrote.
    """

    message: str
    where: str = ""
    path: str = ""

    def __str__(self) -> str:
        parts = (part for part in (self.where, self.path, self.message) if part)
        return ": ".join(printable(part if len(part) <= _LONGEST else f"{part[:_LONGEST]} ... (cut)") for part in parts)


class SuiteError(Exception):
    """Base of every error the suite raises on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 1


class InputError(SuiteError):
    """The input was wrong: a task file, an option, a corpus, a record. Carries every problem found."""

    exit_code = 2

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(p if isinstance(p, Problem) else Problem(p) for p in problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class DataError(InputError):
    """A corpus is missing, damaged, or not the variant the papers used."""


class RunFailed(SuiteError):
    """A run could not be completed."""


class Diverged(RunFailed):
    """The training loss is no longer a finite number."""


class Interrupted(SuiteError):
    """The user asked the run to stop; its last checkpoint is whole."""

    exit_code = 130


def raise_all(problems: Sequence[Problem]) -> None:
    """Raise one :class:`InputError` with every problem, or return when there is none."""
    if problems:
        raise InputError(*problems)


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """`` Did you mean 'hidden'?`` when something close exists, followed by the allowed names otherwise."""
    names = sorted(set(allowed))
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Allowed: {', '.join(names)}." if names else ""
