"""A disk that is full or cannot be written: the path is named, what was there stays whole, the command goes on."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nursery import REPORT, RUN, Ending, Nursery, make_desk, same
from tallies import Tally, times

from suite.records.store import Store

Counted = Callable[[str, str], Tally]
SELDOM = [*RUN[:-1], "30"]  # checkpoints at the end of each stage alone
GO_ON = r". What was there before is whole; once that is mended, the same command goes on from the last checkpoint"


def is_clear(ending: Ending, number: int) -> bool:
    """One line that names a path of the results and the reason, and how to go on."""
    line = rf"error: results\S*: {os.strerror(number)}({re.escape(GO_ON)})?\n"
    return ending.status == 1 and re.fullmatch(line, ending.err) is not None


def each(operations: int, fast: int, full: int | None = None) -> Iterator[int]:
    """Every operation, or a few spread over all."""
    step = max(1, operations // times(fast, full or operations))
    yield from range(operations, 0, -step)


@pytest.fixture(scope="module")
def seldom(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many file operations a run with few checkpoints takes."""
    return nursery.run(make_desk(tmp_path_factory.mktemp("seldom")), SELDOM).operations


@pytest.mark.parametrize(
    ("number", "once", "what"),
    [
        (errno.ENOSPC, True, "the disk is full for a moment"),
        (errno.EROFS, False, "the folder becomes read-only"),
    ],
    ids=["full", "read-only"],
)
def test_a_run(
    nursery: Nursery, undisturbed: Path, seldom: int, tmp_path: Path, tally: Counted, number: int, once: bool, what: str
) -> None:
    row = tally(
        f"{what}, during a run",
        f"operation n {'fails' if once else 'and all after it fail'} ({errno.errorcode[number]}), n = 1, 2, ... "
        "until none does",
    )
    for n in each(seldom, fast=1):
        desk = make_desk(tmp_path / str(n))
        failed = nursery.run(desk, SELDOM, fail=n, last=n if once else 10**6, errno=number)
        good = Store(desk / "results").load()
        again = nursery.run(desk, SELDOM)
        row.tried += 1
        # A folder that is there already need not be made.
        tolerated = once and failed.status == 0
        row.lost += not (
            (is_clear(failed, number) or tolerated) and len(good) <= 1 and again.status == 0 and same(desk, undisturbed)
        )
        assert row.lost == 0, (n, failed, again)
        shutil.rmtree(desk)


def test_a_write_that_does_not_fit(nursery: Nursery, undisturbed: Path, tmp_path: Path, tally: Counted) -> None:
    row = tally("a file cannot grow, during a run", "the kernel refuses bytes beyond a limit (RLIMIT_FSIZE)")
    for largest in (0, 4000, 100, 500, 1000, 1500, 2000, 3000, 5000, 6000)[: times(1, 10)]:
        desk = make_desk(tmp_path / str(largest))
        failed = nursery.run(desk, SELDOM, largest=largest)
        again = nursery.run(desk, SELDOM)
        row.tried += 1
        row.lost += not (
            (is_clear(failed, errno.EFBIG) or failed.status == 0) and again.status == 0 and same(desk, undisturbed)
        )
        assert row.lost == 0, (largest, failed, again)
        assert failed.status == 1 or largest > 4000, "nothing was too large"


def test_a_report(nursery: Nursery, undisturbed: Path, tmp_path: Path, tally: Counted) -> None:
    row = tally("a report cannot be written", "operation n fails (ENOSPC), n = 1, 2, ... until none does")
    whole = shutil.copytree(undisturbed, tmp_path / "whole")
    operations = nursery.run(whole, REPORT).operations
    for n in each(operations, fast=1):
        desk = shutil.copytree(undisturbed, tmp_path / str(n))
        failed = nursery.run(desk, REPORT, fail=n)
        again = nursery.run(desk, REPORT)
        row.tried += 1
        row.lost += not (
            (is_clear(failed, errno.ENOSPC) or failed.status == 0) and again.status == 0 and same(desk, whole)
        )
        assert row.lost == 0, (n, failed, again)
