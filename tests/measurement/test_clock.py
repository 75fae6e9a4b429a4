"""Seconds by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from suite.measurement import clock as module
from suite.measurement.clock import PhaseClock

CPU = torch.device("cpu")


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The readings the clock will take, in order."""
    readings: list[float] = []
    source: Iterator[float] = iter(lambda: readings.pop(0), None)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(source))
    return readings


def test_blocks_of_a_phase_add_up(ticks: list[float]) -> None:
    ticks += [10, 11.5, 20, 20.25, 30, 34]
    clock = PhaseClock(CPU)
    for phase in ("train", "evaluate", "train"):
        with clock(phase):
            pass
    assert clock.seconds == {"train": 5.5, "evaluate": 0.25}


def test_phases_do_not_nest() -> None:
    clock = PhaseClock(CPU)
    with (
        clock("train"),
        pytest.raises(RuntimeError, match=r"\Aclock 'evaluate' started inside 'train'\Z"),
        clock("evaluate"),
    ):
        pass
    with clock("evaluate"):
        pass  # the refusal left nothing running
    assert clock.seconds.keys() == {"train", "evaluate"}


def test_a_block_that_raises_is_counted(ticks: list[float]) -> None:
    ticks += [1, 3]
    clock = PhaseClock(CPU)
    with pytest.raises(ZeroDivisionError), clock("train"):
        raise ZeroDivisionError
    assert clock.seconds == {"train": 2}


def test_a_snapshot_holds_the_running_block(ticks: list[float]) -> None:
    ticks += [1, 4, 6, 8]
    clock = PhaseClock(CPU, {"train": 10.0, "setup": 1.0})
    with clock("train"):
        assert clock.snapshot() == {"train": 13.0, "setup": 1.0}
        assert clock.read("setup") == 1.0
        assert clock.read("train") == 15.0
    assert clock.snapshot() == {"train": 17.0, "setup": 1.0}


def test_what_it_was_given_and_what_it_gives_are_copies() -> None:
    earlier = {"train": 1.0}
    clock = PhaseClock(CPU, earlier)
    clock.snapshot()["train"] = 9.0
    with clock("train"):
        time.sleep(0.002)
    assert earlier == {"train": 1.0}
    assert 1.002 <= clock.seconds["train"] < 1.5


def test_a_gpu_is_waited_for_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []

    def stream(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(synchronize=lambda: waited.append(device))

    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    device = torch.device("cuda", 1)
    clock = PhaseClock(device)
    with clock("train"):
        assert waited == [device]
    assert waited == [device, device]
