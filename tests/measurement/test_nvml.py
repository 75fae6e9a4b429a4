"""Readings of NVIDIA's library, each of which may be absent."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from fake_gpu import CUDA, FakeGpu

from suite.measurement.nvml import Nvml, Usage


def opened() -> Nvml:
    nvml = Nvml.open(CUDA)
    assert nvml is not None
    return nvml


def test_the_device_is_found_by_its_own_name(gpu: FakeGpu) -> None:
    opened()
    assert gpu.asked_for == "GPU-1234-ab"


def test_there_is_none_without_a_gpu_a_driver_or_the_module(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Nvml.open(torch.device("cpu")) is None

    def fail() -> None:
        raise gpu.NVMLError("driver not loaded")

    monkeypatch.setattr(gpu, "nvmlInit", fail)
    assert Nvml.open(CUDA) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvml.open(CUDA) is None


def test_the_share_of_this_process(gpu: FakeGpu) -> None:
    gpu.holds(640)
    assert opened().usage() == Usage(1000.0, 640.0, False)
    gpu.holds(640, 200)
    assert opened().usage() == Usage(1000.0, 640.0, True)


def test_in_a_container_one_foreign_entry_is_taken_to_be_us(gpu: FakeGpu) -> None:
    gpu.processes = [(os.getpid() + 1, 640)]
    assert opened().usage() == Usage(1000.0, None, False)
    gpu.processes = []
    assert opened().usage() == Usage(1000.0, None, None)


def test_what_the_driver_does_not_tell_stays_unknown(gpu: FakeGpu) -> None:
    gpu.processes = [(os.getpid(), None)]
    assert opened().usage() == Usage(1000.0, None, False)
    gpu.processes = None
    assert opened().usage() == Usage(1000.0, None, None)
    gpu.used = None
    assert opened().usage() is None


def test_energy_and_driver(gpu: FakeGpu) -> None:
    nvml = opened()
    assert (nvml.energy_joules(), nvml.driver()) == (50.0, "580.1")
    gpu.joules = gpu.version = None
    assert (nvml.energy_joules(), nvml.driver()) == (None, None)
