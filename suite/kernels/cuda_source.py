"""Kernels in CUDA C++, compiled when first asked for, by NVRTC through NVIDIA's ``cuda.bindings``.

Both come with torch's builds for CUDA; nothing is compiled at installation, and no compiler need be there. A kernel is
for what Triton cannot say: atomics in shared memory, a grid that waits for itself.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_OLDEST = (8, 0)
_WITHOUT_ASKING = 48 * 1024  # bytes of shared memory that any kernel gets


def available(device: torch.device) -> bool:
    """Whether kernels of ours can be made for a device: a GPU of compute capability 8.0 or later, and the bindings."""
    if device.type != "cuda" or torch.version.hip is not None or not _bindings():
        return False
    return torch.cuda.get_device_capability(device) >= _OLDEST


@cache
def _bindings() -> bool:
    try:
        return importlib.util.find_spec("cuda.bindings.nvrtc") is not None
    except ModuleNotFoundError:
        return False


def largest_shared(device: torch.device) -> int:
    """Bytes of dynamic shared memory that a block of a kernel may ask for."""
    from cuda.bindings import driver

    index = torch.cuda.current_device() if device.index is None else device.index
    attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    return int(_checked(driver.cuDeviceGetAttribute(attribute, _checked(driver.cuDeviceGet(index)))))


def kernel(source: str, name: str, device: torch.device, **defines: int | str) -> Kernel:
    """A kernel of a file in this folder, compiled once for a kind of device and for every set of ``defines``.

    Args:
        source: the file's name; its kernels are ``extern "C"``, and it includes files of this folder alone, by name.
        name: of the kernel.
        device: where it will run.
        defines: macros.

    Raises:
        RuntimeError: the source does not compile; the compiler's log is in the message.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    return _kernel(source, name, index, tuple(sorted(defines.items())))


@cache
def _kernel(source: str, name: str, device: int, defines: tuple[tuple[str, int | str], ...]) -> Kernel:
    from cuda.bindings import driver

    image = compile_source(source, torch.cuda.get_device_capability(device), defines)
    # A context must be there to load into, and torch makes it on the device's first use.
    with torch.cuda.device(device):
        torch.cuda.current_stream().query()
        module = _checked(driver.cuModuleLoadData(image))
        return Kernel(_checked(driver.cuModuleGetFunction(module, name.encode())), image)


@cache
def compile_source(source: str, capability: tuple[int, int], defines: tuple[tuple[str, int | str], ...] = ()) -> bytes:
    """Machine code of a file in this folder; needs no GPU. See :func:`kernel`."""
    from cuda.bindings import nvrtc

    folder = Path(__file__).parent
    text = (folder / source).read_bytes()
    names = re.findall(rb'#include "(.+)"', text)
    included = [(folder / name.decode()).read_bytes() for name in names]
    program = _checked(nvrtc.nvrtcCreateProgram(text, source.encode(), len(names), included, names))
    options = [
        f"-arch=sm_{capability[0]}{capability[1]}",
        "-std=c++17",
        *(f"-D{key}={value}" for key, value in defines),
    ]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = bytearray(_checked(nvrtc.nvrtcGetProgramLogSize(program)))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise RuntimeError(f"{source} does not compile with {' '.join(options)}:\n{log.decode(errors='replace')}")
    image = bytearray(_checked(nvrtc.nvrtcGetCUBINSize(program)))
    _checked(nvrtc.nvrtcGetCUBIN(program, image))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return bytes(image)


class Kernel:
    """A compiled kernel; see :func:`kernel`."""

    def __init__(self, function: Any, image: bytes) -> None:
        self._function = function
        self._image = image  # kept as long as what was loaded from it
        self._allowed = _WITHOUT_ASKING

    def launch(
        self, grid: int, block: int, *arguments: Tensor | int | float, shared: int = 0, cooperative: bool = False
    ) -> None:
        """Start it on the current stream of the current device.

        Args:
            grid: blocks.
            block: threads of each.
            arguments: a tensor goes as the address of its data, an int as C's ``int``, a float as C's ``float``.
            shared: bytes of dynamic shared memory.
            cooperative: start only if all blocks can run at once, so that they may wait for each other.

        Raises:
            RuntimeError: the driver refuses; its reason is in the message.
        """
        from cuda.bindings import driver

        self._allow(shared)
        values, types = zip(*map(_argument, arguments), strict=True)
        start = driver.cuLaunchCooperativeKernel if cooperative else driver.cuLaunchKernel
        stream = torch.cuda.current_stream().cuda_stream
        last = () if cooperative else (0,)
        _checked(start(self._function, grid, 1, 1, block, 1, 1, shared, stream, (values, types), *last))

    def blocks_per_multiprocessor(self, block: int, shared: int = 0) -> int:
        """How many blocks of ``block`` threads and ``shared`` bytes one multiprocessor runs at once."""
        from cuda.bindings import driver

        self._allow(shared)
        found = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(self._function, block, shared)
        return int(_checked(found))

    def _allow(self, shared: int) -> None:
        if shared <= self._allowed:
            return
        from cuda.bindings import driver

        wanted = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(self._function, wanted, shared))
        self._allowed = shared


def _argument(value: Tensor | int | float) -> tuple[int | float, Any]:
    if isinstance(value, Tensor):
        return value.data_ptr(), ctypes.c_void_p
    return value, ctypes.c_int if isinstance(value, int) else ctypes.c_float


def _checked(answer: tuple[Any, ...]) -> Any:
    """What a function of the bindings returns beside its status, which must be success."""
    status, *rest = answer
    if int(status) != 0:
        raise RuntimeError(f"{type(status).__name__}: {status.name}")
    return rest[0] if rest else None
