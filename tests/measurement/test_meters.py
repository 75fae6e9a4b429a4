"""Peaks of memory, energy, and how the attempts at one run add up."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from fake_gpu import CUDA, FakeGpu, FakeTime

from suite.measurement import memory
from suite.measurement.energy import EnergyMeter
from suite.measurement.memory import MemoryMeter
from suite.measurement.meters import Meters, merge
from suite.measurement.nvml import Nvml
from suite.records.record import Costs


def gpu_fields(read: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in read.items() if not key.startswith("cpu")}


def until(meter: MemoryMeter, field: str, value: float) -> None:
    """Wait for the sampler to see a reading."""
    deadline = time.monotonic() + 5
    while meter.read().get(field) != value:
        assert time.monotonic() < deadline, meter.read()
        time.sleep(0.005)


def test_the_peak_is_this_processs_share_where_the_driver_tells(gpu: FakeGpu) -> None:
    meter = MemoryMeter(CUDA, Nvml.open(CUDA))
    gpu.holds(300)
    meter.start()
    gpu.holds(800)
    until(meter, "gpu_peak_mib", 800)
    gpu.holds(500)
    gpu.peak_allocated, gpu.peak_reserved = 700, 750
    time.sleep(3 * memory._PERIOD_S)
    meter.stop()
    assert gpu_fields(meter.read()) == {
        "exclusive": True,
        "gpu_peak_mib": 800.0,
        "gpu_peak_source": "process",
        "allocator_peak_mib": 700.0,
        "allocator_reserved_mib": 750.0,
    }


def test_the_peak_by_the_end_of_a_stage_is_kept(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PERIOD_S", 60.0)
    meters = Meters(CUDA, {"gpu_peak_mib": 900.0, "gpu_peak_source": "process"})
    gpu.holds(300)
    meters.start()
    meters.mark("train")
    gpu.holds(1000)
    meters.mark("rank")
    gpu.holds(400)
    meters.mark("divergence")
    read = meters.stop()
    assert read["stage_peaks_mib"] == {"train": 900.0, "rank": 1000.0, "divergence": 1000.0}, "900: an earlier attempt"
    assert Meters(CUDA, read).read()["stage_peaks_mib"] == read["stage_peaks_mib"], "the next attempt goes on"
    on_cpu = Meters(torch.device("cpu"))
    on_cpu.start()
    on_cpu.mark("train")
    assert on_cpu.read()["stage_peaks_mib"] == {"train": pytest.approx(on_cpu.stop()["cpu_peak_mib"], rel=0.1)}


def test_elsewhere_it_is_the_devices_use_less_the_idle_baseline(gpu: FakeGpu) -> None:
    gpu.processes, gpu.used, gpu.reserved = None, 1200, 200
    meter = MemoryMeter(CUDA, Nvml.open(CUDA))
    meter.start()  # 200 of the 1200 are this process's own and no baseline
    gpu.used = 5000
    until(meter, "gpu_peak_mib", 4000)
    meter.stop()
    read = meter.read()
    assert (read["gpu_peak_source"], read["exclusive"]) == ("device-minus-baseline", None)


def test_one_look_at_another_process_ends_exclusiveness(gpu: FakeGpu) -> None:
    gpu.holds(300)
    meter = MemoryMeter(CUDA, Nvml.open(CUDA))
    meter.start()
    assert meter.read()["exclusive"] is True
    gpu.holds(300, 50)
    until(meter, "exclusive", False)
    gpu.holds(300)
    time.sleep(3 * memory._PERIOD_S)
    meter.stop()
    assert meter.read()["exclusive"] is False


def test_a_driver_that_answers_nothing_gives_no_figure(gpu: FakeGpu) -> None:
    gpu.used = gpu.processes = None
    meter = MemoryMeter(CUDA, Nvml.open(CUDA))
    meter.start()
    meter.stop()
    assert gpu_fields(meter.read()) == {
        "exclusive": None,
        "allocator_peak_mib": 0.0,
        "allocator_reserved_mib": 0.0,
    }


def test_a_cpu_run_has_its_resident_peak_alone() -> None:
    cpu = torch.device("cpu")
    meter = MemoryMeter(cpu, None)
    meter.start()
    before = meter.read()
    block = bytearray(96 * 1024 * 1024)
    block[::4096] = b"x" * len(block[::4096])
    del block
    meter.stop()
    after = meter.read()
    assert after.keys() == {"exclusive", "cpu_peak_mib", "cpu_peak_source"}
    assert after["exclusive"] is None
    assert after["cpu_peak_source"] in ("run", "process-lifetime")
    if after["cpu_peak_source"] == "run":
        assert after["cpu_peak_mib"] >= before["cpu_peak_mib"] + 80


def test_where_the_peak_cannot_be_restarted_it_says_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_resident_peak", lambda: False)
    meter = MemoryMeter(torch.device("cpu"), None)
    meter.start()
    assert meter.read()["cpu_peak_source"] == "process-lifetime"


def test_energy_of_a_window(gpu: FakeGpu, energy_time: FakeTime) -> None:
    meter = EnergyMeter(Nvml.open(CUDA))
    meter.start()
    gpu.joules = 4050.0
    energy_time.now += 9.9
    assert meter.read() == {}, "the counter is too coarse for a short window"
    energy_time.now += 0.1
    assert meter.read() == {"energy_joules": 4000.0, "energy_seconds": pytest.approx(10.0)}


def test_the_counter_as_it_stands(gpu: FakeGpu) -> None:
    meters = Meters(CUDA)
    assert meters.joules() == 50.0
    gpu.joules = None
    assert math.isnan(meters.joules())
    assert math.isnan(Meters(torch.device("cpu")).joules())


@pytest.mark.parametrize(("before", "after"), [(50.0, 40.0), (None, 40.0), (50.0, None)])
def test_a_counter_that_went_back_or_away_gives_no_energy(
    gpu: FakeGpu, energy_time: FakeTime, before: float | None, after: float | None
) -> None:
    gpu.joules = before
    meter = EnergyMeter(Nvml.open(CUDA))
    meter.start()
    gpu.joules = after
    energy_time.now += 60
    assert meter.read() == {}


def test_without_a_gpu_there_is_no_energy(energy_time: FakeTime) -> None:
    meter = EnergyMeter(None)
    meter.start()
    energy_time.now += 60
    assert meter.read() == {}


def test_attempts_at_one_run_add_up(gpu: FakeGpu, energy_time: FakeTime) -> None:
    def attempt(earlier: dict[str, Any] | None, mib: float, joules: float, *others: float) -> dict[str, Any]:
        gpu.holds(mib, *others)
        gpu.peak_allocated = gpu.peak_reserved = mib - 10
        gpu.joules = 100.0
        meters = Meters(CUDA, earlier)
        meters.start()
        gpu.joules += joules
        energy_time.now += 20
        once, again = meters.read(), meters.read()
        # This very process's resident peak may rise between two looks.
        assert {**once, "cpu_peak_mib": 0} == {**again, "cpu_peak_mib": 0}, "reading twice adds nothing twice"
        return meters.stop()

    first = attempt(None, 900, 1000)
    second = attempt(first, 600, 500)
    assert gpu_fields(second) == {
        "exclusive": True,
        "gpu_peak_mib": 900.0,
        "gpu_peak_source": "process",
        "allocator_peak_mib": 890.0,
        "allocator_reserved_mib": 890.0,
        "energy_joules": 1500.0,
        "energy_seconds": 40.0,
    }
    third = attempt(second, 1200, 250, 77)
    assert (third["exclusive"], third["gpu_peak_mib"], third["energy_joules"]) == (False, 1200.0, 1750.0)
    assert attempt(third, 100, 0)["exclusive"] is False, "company once is company for good"
    Costs(seconds={"total": 1.0}, **third)  # every field is one a record knows


def test_peaks_of_different_kinds_do_not_compare() -> None:
    share = {"gpu_peak_mib": 500.0, "gpu_peak_source": "process"}
    device = {"gpu_peak_mib": 90.0, "gpu_peak_source": "device-minus-baseline"}
    assert merge(share, device) == device
    assert merge(device, share) == share
    assert merge(share, {}) == share
    assert merge({}, share) == share


@pytest.mark.parametrize(
    ("earlier", "now", "both"),
    [
        (True, True, True),
        (True, False, False),
        (False, True, False),
        (False, None, False),
        (None, False, False),
        (None, True, None),
        (True, None, None),
        (None, None, None),
    ],
)
def test_a_run_was_alone_only_if_every_attempt_is_known_to_have_been(
    earlier: bool | None, now: bool | None, both: bool | None
) -> None:
    assert merge({"exclusive": earlier}, {"exclusive": now}) == {"exclusive": both}


@pytest.mark.parametrize(
    ("reasons", "seen"),
    [(0x1, False), (0x4, False), (0x8, True), (0x20, True), (0x40, True), (0x80, True), (None, None)],
    ids=["idle", "power limit", "hardware", "software heat", "hardware heat", "power brake", "unknown"],
)
def test_a_moment_of_throttling_is_remembered(gpu: FakeGpu, reasons: int | None, seen: bool | None) -> None:
    gpu.throttling = reasons
    meter = MemoryMeter(CUDA, Nvml.open(CUDA))
    meter.start()
    gpu.throttling = 0 if reasons is not None else None
    meter.stop()
    assert meter.read().get("throttled") is seen
    now = {"throttled": False} if seen is not None else {}
    assert merge(meter.read(), now).get("throttled") is seen
