"""A CUDA kernel of the suite compiled for the CPU (cuda_on_cpu.h), to be launched as on a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
from torch import Tensor

import suite.kernels

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
SOURCES = Path(suite.kernels.__file__).parent

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to run CUDA kernels on the CPU")


class Kernel:
    """As :class:`suite.kernels.cuda_source.Kernel`, on tensors of the CPU."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._launch = library[f"launch_{name}"]

    def launch(
        self, grid: int, block: int, *arguments: Tensor | int | float, shared: int = 0, cooperative: bool = False
    ) -> None:
        """Run it to its end."""
        values = [_parameter(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        self._launch(grid, block, shared, int(cooperative), pointers)


def compiled(folder: Path, source: str, names: list[str], **defines: int | str) -> dict[str, Kernel]:
    """The kernels ``names`` of ``source`` (in suite/kernels), by name."""
    values = "-".join(f"{k}={v}" for k, v in defines.items())
    library = folder / f"{source}-{values}.so"
    if not library.exists():
        wrapper = library.with_suffix(".cpp")
        launchers = "\n".join(f"CUDA_LAUNCHER({name})" for name in names)
        wrapper.write_text(f'#include "{HEADER}"\n#include "{SOURCES / source}"\n{launchers}\n')
        flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-DCUDA_ON_CPU", "-Wno-unknown-pragmas"]
        flags += [f"-D{k}={v}" for k, v in defines.items()]
        subprocess.run(["g++", *flags, "-o", str(library), str(wrapper)], check=True)
    loaded = ctypes.CDLL(str(library))
    return {name: Kernel(loaded, name) for name in names}


def _parameter(argument: Tensor | int | float) -> ctypes.c_void_p | ctypes.c_int | ctypes.c_float:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)
