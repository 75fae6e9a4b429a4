"""Turns: a recording has the GPU to itself, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from suite.models.turns import Turns


def together(*runs) -> list:  # type: ignore[no-untyped-def,type-arg]
    """Run all at once, each in a thread of its own; their results, or the first error; a deadlock is one."""
    pool = ThreadPoolExecutor(len(runs))
    futures = [pool.submit(run) for run in runs]
    try:
        return [future.result(timeout=20) for future in futures]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def test_nobody_works_while_one_records() -> None:
    turns, lock, at_work, seen = Turns(), threading.RLock(), [False] * 5, []

    def run(number: int) -> None:
        with turns.member():
            for step in range(60):
                turns.rest()
                at_work[number] = True
                time.sleep(1e-4)
                at_work[number] = False
                if step % 15 == number:
                    record(number)

    def record(number: int) -> None:
        with turns.holding(lock), turns.alone():
            for _ in range(5):
                seen.append((number, list(at_work)))
                time.sleep(1e-4)

    together(*(lambda number=number: run(number) for number in range(5)))
    assert len(seen) == 5 * 4 * 5
    assert not [one for one in seen if any(one[1])]
    assert all(seen[i][0] == seen[i + 1][0] for i in range(0, len(seen), 5)), "recordings do not overlap"


def test_who_waits_for_the_lock_or_has_ended_is_not_waited_for() -> None:
    turns, lock, holding, ended = Turns(), threading.RLock(), threading.Event(), threading.Event()

    def records() -> None:
        with turns.member(), turns.holding(lock):
            holding.set()
            assert ended.wait(10)
            with turns.alone():
                pass

    def waits_for_the_lock() -> None:
        with turns.member():
            assert holding.wait(10)
            with turns.holding(lock):
                pass
            turns.rest()

    def ends() -> None:
        with turns.member():
            assert holding.wait(10)
        ended.set()

    together(records, waits_for_the_lock, ends)


def test_a_member_that_fails_lets_the_others_go_on() -> None:
    turns = Turns()

    def fails() -> None:
        with turns.member(), turns.alone():
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        together(fails)
    with turns.member(), turns.alone():
        pass


def test_a_single_run_needs_no_membership_and_may_hold_the_lock_twice() -> None:
    turns, lock = Turns(), threading.RLock()
    turns.rest()
    with turns.holding(lock), turns.holding(lock), turns.alone():
        pass
