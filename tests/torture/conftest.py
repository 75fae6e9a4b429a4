"""What every injected fault shares: it is counted, and under ``make torture`` the count is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nursery import RUN, Nursery, make_desk
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


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks commands that meet a fault; started once."""
    started = Nursery()
    yield started
    started.close()


@pytest.fixture(scope="session")
def operations(nursery: Nursery, undisturbed: Path) -> int:
    """How many file operations a run takes."""
    desk = make_desk(undisturbed.parent / "counted")
    return nursery.run(desk, RUN).operations


@pytest.fixture(scope="session")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a run that met no fault."""
    desk = make_desk(tmp_path_factory.mktemp("undisturbed") / "desk")
    assert nursery.run(desk, RUN).status == 0
    return desk
