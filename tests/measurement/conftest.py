from __future__ import annotations

import pytest
from fake_gpu import FakeGpu, FakeTime

from suite.measurement import energy


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(monkeypatch)


@pytest.fixture
def energy_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The clock of the energy meter."""
    time = FakeTime()
    monkeypatch.setattr(energy, "time", time)
    return time
