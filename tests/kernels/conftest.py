from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_on_cpu import Kernel, compiled

from suite.kernels import cuda_source, pieces


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels compiled for the CPU are kept for the tests that follow."""
    return tmp_path_factory.mktemp("cuda_on_cpu")


KERNELS = {
    "pieces.cu": ["locate"],
    "knots.cu": ["prepare", "accumulate", "collect"],
    "plif.cu": ["statistics", "gradient"],
}


@pytest.fixture
def knots_on_cpu(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels for PLIF's pieces run on tensors of the CPU, as on a GPU of three multiprocessors with little memory.

    Gives the names of the kernels that were asked for.
    """
    asked: list[str] = []
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run CUDA kernels on the CPU")

    def kernel(source: str, name: str, device: torch.device, **defines: Any) -> Kernel:
        asked.append(name)
        return compiled(libraries, source, KERNELS[source], **defines)[name]

    monkeypatch.setattr(cuda_source, "kernel", kernel)
    monkeypatch.setattr(cuda_source, "available", lambda device: True)
    monkeypatch.setattr(pieces, "limits", lambda device: (3, 8192))
    monkeypatch.setattr(pieces, "THREADS", 64)
    return asked
