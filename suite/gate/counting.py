"""What a step does, counted: operations, floating-point operations, and the most bytes that were alive at once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

_WARM_UP = 2


class Counts(NamedTuple):
    """``operations``: of torch's ATen library, each call one; ``flops``: those of products; ``peak_bytes``."""

    operations: int
    flops: int
    peak_bytes: int


class Ledger(TorchDispatchMode):
    """Counts the operations that reach a device, forward, backward and update alike, and the memory they hold.

    A CPU has no allocator that knows its peak, and resident memory keeps what was freed long ago; so every storage that
    an operation makes is noted, and struck out when nothing refers to it any more. What was there before does not
    count, nor does scratch memory inside an operation.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.peak_bytes = 0
        self._bytes = 0
        self._known: dict[int, int] = {}

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._note(tensor, counts=False)
        result = func(*args, **(kwargs or {}))
        if func.namespace == "aten":  # not the marks of the profiler
            self.operations += 1
        for tensor in _tensors(result):
            self._note(tensor, counts=True)
        return result

    def _note(self, tensor: Tensor, *, counts: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = storage.nbytes() if counts else 0
        self._bytes += self._known[key]
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._bytes -= self._known.pop(key)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def count(step: Callable[[], object]) -> Counts:
    """Count one step of several; ``peak_bytes`` spans all, so that gradients and optimiser state are in it."""
    # Whatever is freed by the collector of cycles would be freed at another moment every time.
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        with Ledger() as whole:
            for _ in range(_WARM_UP):
                step()
            with Ledger() as one, FlopCounterMode(display=False) as flops:
                step()
    finally:
        if collecting:
            gc.enable()
    return Counts(one.operations, flops.get_total_flops(), whole.peak_bytes)
