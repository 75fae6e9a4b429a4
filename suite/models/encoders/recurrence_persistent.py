"""One LSTM layer on a GPU by the suite's own persistent kernels: see suite/kernels/lstm.cu and :mod:`.recurrence`.

The products with the inputs, before and after the recurrence, are cuBLAS's over the whole segment; the recurrence is
one launch forward and one backward. Its blocks wait for each other, so all must run at once: that is what a cooperative
launch promises, also beside other streams' work, whose blocks it waits for. Two such launches of one device therefore
follow each other. Nothing of them outlasts a launch, so that a captured one may be replayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from suite.kernels import cuda_source
from suite.models.encoders.recurrence_weights import Sizes, pack, unpack

_SOURCE = "lstm.cu"
_KINDS = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}
_WORDS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}
LARGEST_BATCH = 32
# Of a block, tried in this order: multiples of the 4 parts of a multiprocessor, or registers lie idle. Fewer leave room
# for a larger matrix, as they have fewer sums to meet.
_WARPS = (12, 8)


def _parts(size: int, part: int) -> int:
    """Parts that hold ``size``."""
    return -(-size // part)


class Plan(NamedTuple):
    """How a layer is laid over a GPU.

    Attributes:
        dtype: of inputs, outputs and products; float32 means TF32 products.
        hidden: units, as the tensors have them.
        batch: sequences, as the tensors have them.
        units: of a block, a multiple of 4.
        warps: of a block.
    """

    dtype: torch.dtype
    hidden: int
    batch: int
    units: int
    warps: int = _WARPS[0]

    @property
    def blocks(self) -> int:
        """Blocks that own units; backward runs whole groups of four."""
        return _parts(self.hidden, self.units)

    @property
    def grouped(self) -> int:
        """The same up to a multiple of four."""
        return _parts(self.blocks, 4) * 4

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps

    @property
    def chunks(self) -> int:
        """Pieces of 64 bytes of a row of the matrix that a warp multiplies."""
        return _parts(_parts(self.hidden * self.dtype.itemsize, 64), self.warps)

    @property
    def resident(self) -> int:
        """Of those, how many stay in registers beside a time step's operands and sums; the rest in shared memory."""
        tiles, columns = self.units // 4, _parts(self.batch, 8)
        items = _parts(self.batch * self.units, self.threads)
        most = min(255, 65536 // self.threads // 8 * 8)  # registers of a thread
        free = most - 4 * columns * (self.chunks + tiles) - 12 * (1 + items)
        if free >= 8 * tiles * self.chunks:
            return self.chunks
        return max(0, (free - 16) // (8 * tiles))  # reading from shared memory takes registers too

    @property
    def shared(self) -> int:
        """Bytes of shared memory: what registers do not hold, and a sum for every warp, sequence and row."""
        matrix = (self.chunks - self.resident) * (self.units // 4) * 2 * self.threads * 16
        return matrix + 4 * self.warps * _parts(self.batch, 8) * 8 * (4 * self.units + 4)

    def kernel(self, name: str, device: torch.device) -> cuda_source.Kernel:
        """One of the file's kernels for this layer."""
        return cuda_source.kernel(
            _SOURCE,
            name,
            device,
            TYPE=_KINDS[self.dtype],
            HIDDEN=self.hidden,
            BATCH=self.batch,
            UNITS=self.units,
            WARPS=self.warps,
            RESIDENT=self.resident,
        )

    def runs(self, device: torch.device) -> bool:
        """Whether every block finds a multiprocessor, were there nothing else on them."""
        kernels = [self.kernel(name, device) for name in ("lstm_forward", "lstm_backward")]
        return all(kernel.blocks_per_multiprocessor(self.threads, self.shared) >= 1 for kernel in kernels)


@cache
def plan(hidden: int, batch: int, dtype: torch.dtype, device: torch.device, crowded: bool = False) -> Plan | None:
    """How to run a layer, or None where these kernels cannot.

    Args:
        hidden: units, padded.
        batch: sequences, padded.
        dtype: of the products; float32 stands for TF32.
        device: with its index.
        crowded: on half of the multiprocessors, where they hold the layer.
    """
    if (
        dtype not in _KINDS
        or batch > LARGEST_BATCH
        or hidden * dtype.itemsize % 16
        or not cuda_source.available(device)
    ):
        return None
    count = torch.cuda.get_device_properties(device).multi_processor_count
    for most in (count // 2, count) if crowded else (count,):
        units = next(n for n in range(4, hidden + 4, 4) if Plan(dtype, hidden, batch, n).grouped <= most)
        for warps in _WARPS:
            made = Plan(dtype, hidden, batch, units, warps)
            if made.shared <= cuda_source.largest_shared(device) and made.runs(device):
                return made
    return None


def _absent(*shape: int, like: Tensor) -> Tensor:
    """What the kernels take for not yet written."""
    return torch.full(shape, -1, dtype=_WORDS[like.dtype], device=like.device).view(like.dtype)


def _wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` [N, I] times ``weight`` [O, I], in float32 also where the operands are of half precision."""
    if x.is_cuda and x.dtype != torch.float32:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    return x.float() @ weight.float().t()


@contextmanager
def _as_recurrence(dtype: torch.dtype) -> Iterator[None]:
    """Matrix products in TF32, where float32 stands for it, whatever the flag says for those of the head."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before or dtype == torch.float32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class _PersistentLstm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        sizes: Sizes,
        mask: Tensor | None,
        scale: float,
        layout: Plan,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, batch, _ = x.shape
        hidden = layout.hidden
        packed = pack([w.detach() for w in weights], mask, scale, sizes, x.dtype)
        of_inputs, recurrent, bias, _ = sizes.views(packed)
        flat, first_c = x.reshape(steps * batch, -1), c.contiguous()
        with _as_recurrence(x.dtype):
            projected = _wide_product(flat, of_inputs)
        # The state before each time step, and behind it the last: the segment's output from the second on.
        states = _absent(steps + 1, batch, hidden, like=x)
        states[0].copy_(h[0])
        gates = x.new_empty(steps, batch, 4 * hidden)
        cells = x.new_empty(steps, batch, hidden, dtype=torch.float32)
        last_h, last_c = x.new_empty(1, batch, hidden), x.new_empty(1, batch, hidden)
        layout.kernel("lstm_forward", x.device).launch(
            layout.blocks,
            layout.threads,
            *(projected, recurrent, bias, first_c, states, gates, cells, last_h, last_c, steps),
            shared=layout.shared,
            cooperative=True,
        )
        ctx.save_for_backward(flat, packed, first_c, states, gates, cells, *([] if mask is None else [mask]))
        ctx.sizes, ctx.scale, ctx.layout = sizes, scale, layout
        ctx.mark_non_differentiable(last_h, last_c)
        return states[1:], last_h, last_c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor, _of_h: Tensor, _of_c: Tensor) -> tuple[Tensor | None, ...]:
        flat, packed, first_c, states, gates, cells, *masks = ctx.saved_tensors
        sizes: Sizes = ctx.sizes
        layout: Plan = ctx.layout
        steps, batch, hidden = cells.shape
        of_inputs, recurrent, _, _ = sizes.views(packed)
        of_packed = torch.empty_like(packed)
        of_weights, of_recurrent, of_bias, _ = sizes.views(of_packed)
        of_gates = _absent(steps, batch, 4 * hidden, like=packed)
        exchange = torch.zeros(layout.grouped, 4, batch, layout.units, device=packed.device)
        layout.kernel("lstm_backward", packed.device).launch(
            layout.grouped,
            layout.threads,
            *(of_y.contiguous(), recurrent, gates, cells, first_c, of_gates, exchange, of_bias, steps),
            shared=layout.shared,
            cooperative=True,
        )
        rows = of_gates.view(steps * batch, -1)
        with _as_recurrence(packed.dtype):
            torch.mm(rows.t(), flat, out=of_weights)
            torch.mm(rows.t(), states[:-1].view(steps * batch, -1), out=of_recurrent)
            of_x = (rows @ of_inputs).view(steps, batch, -1)
        found = unpack(of_packed, masks[0] if masks else None, ctx.scale, sizes)
        return of_x, None, None, None, None, None, None, *found


def persistent_layer(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: list[Tensor],
    mask: Tensor | None,
    scale: float,
    sizes: Sizes,
    layout: Plan,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer over a segment; see :func:`suite.models.encoders.recurrence.lstm_layer`.

    A state narrower than the kernels' rows is padded here, and what is returned is as narrow again.
    """
    width = h.shape[-1]
    h, c = (functional.pad(part, (0, layout.hidden - width)) if width < layout.hidden else part for part in (h, c))
    y, last_h, last_c = _PersistentLstm.apply(x, h, c, sizes, mask, scale, layout, *weights)  # type: ignore[no-untyped-call]
    return y[..., :width], last_h[..., :width].contiguous(), last_c[..., :width].contiguous()
