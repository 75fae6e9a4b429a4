"""What every injected fault shares: it is counted, and under ``make torture`` the count is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tallies import TORTURE, Tally, keep


@pytest.fixture
def tally() -> Iterator[Callable[[str, str], Tally]]:
    """``tally(fault, how)`` opens a row; the test counts ``tried`` and ``lost`` in it and asserts that none is lost."""
    opened: list[Tally] = []

    def opening(fault: str, how: str) -> Tally:
        opened.append(Tally(fault, how))
        return opened[-1]

    yield opening
    if TORTURE:
        for row in opened:
            keep(row)
