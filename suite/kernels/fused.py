"""The one-pass loss with Triton row kernels between cuBLAS's products.

Logits are kept in the products' own dtype, or in float32 where ``float16`` is to be as accurate as TF32; statistics,
the loss and the weights' gradients are float32. See :mod:`suite.kernels.triton_rows` for the kernels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn import functional

from suite.kernels import one_pass, pieces, plif_rows, triton_gradient
from suite.kernels import triton_rows as kernels
from suite.kernels.arithmetic import Products, power_of_two
from suite.kernels.fused_functions import NETWORK, PLIF, as_function
from suite.kernels.knot_sums import KnotSums
from suite.kernels.one_pass import Call, RowPass
from suite.kernels.pieces import Pieces
from suite.kernels.plif_rows import PlifRows
from suite.kernels.projection import Projection
from suite.kernels.tuning import Tuning
from suite.kernels.twice import Loss
from suite.models.heads.learnable import Plif
from suite.models.heads.pointwise import Pointwise
from suite.spec.recipe import Arithmetic

# Elements: cuBLAS has its fast kernels only for sizes and rows that are multiples of some power of two, the vocabulary
# as the fastest of two output dimensions, and what a half-precision product sums over.
_ALIGN, _DEPTH = 16, 8


def mixture_nll(
    contexts: Tensor,
    log_prior: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    pointwise: Pointwise,
    row_weight: Tensor | None = None,
    eps: float = 0.0,
    chunk_bytes: int | None = None,
    arithmetic: Arithmetic = "float32",
    projection: Projection | None = None,
    tuning: Tuning | None = None,
    factor: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """See :func:`suite.kernels.chunked.mixture_nll`; float32 arguments, a function that the kernels know."""
    chosen = tuning or Tuning()
    rows = TritonRows
    if tuning is not None:

        class Tuned(TritonRows):
            tuning = chosen

        rows = Tuned
    products = Products(arithmetic, contexts)
    logits, gradients = rows.logits(products), rows.gradients(products)
    kind = 0 if logits.itemsize == 2 else 1 if logits == gradients else 2
    if arithmetic != "float32" and projection is None and weight.shape[1] % _DEPTH:
        extra = (0, -weight.shape[1] % _DEPTH)
        contexts, weight = functional.pad(contexts, extra), functional.pad(weight, extra)
    # A chunk costs a pass over the weight's gradient: where that is large, chunks are too.
    passed = weight.numel() * 4
    large = chosen.large_bytes if passed >= chosen.large_from else 0
    budget = chunk_bytes or max(chosen.chunk_bytes[kind], large, passed // 6)
    experts = contexts.shape[1] if projection is None else projection.experts
    counted = rows.counts_knots(pointwise, targets.numel() * experts * weight.shape[0], contexts.device)
    if counted and kind == 1:  # the gradient no longer takes the logits' place
        budget //= 2
    problem = one_pass.Problem(Loss(targets, pointwise, eps, budget, arithmetic, projection, factor), rows, experts)
    prior = None if log_prior is None else log_prior.contiguous()
    return one_pass.apply(problem, contexts.contiguous(), prior, weight, bias, row_weight)


class TritonRows(RowPass):
    """Three kernels a chunk, of a PLIF two in CUDA, and one more for the sums of its pieces."""

    tuning = Tuning()

    def __init__(self, call: Call, rows: int) -> None:
        super().__init__(call, rows)
        device = call.targets.device
        self._targets = call.targets.contiguous()
        self._function = as_function(call.pointwise, call.operands)
        self._width = self.width(call.words)
        room = -(-rows // plif_rows.ALIGNMENT) * plif_rows.ALIGNMENT
        self._log_normaliser, self._log_p, self._share = torch.empty(3, room, dtype=torch.float32, device=device)
        self._at_once = self._rows_at_once(rows)
        # What the heavier functions keep beside an element must fit in the registers too.
        light = self._function.kind not in (PLIF, NETWORK)
        self._stages = self.tuning.stages if light else 1
        self._statistics_block, self._block = (
            max(tile // self._at_once // (1 if light else 2), 32 * self.tuning.warps)
            for tile in (self.tuning.statistics_tile, self.tuning.gradient_tile)
        )
        blocks = triton.cdiv(self._width, self._block)
        network = self._function.kind == NETWORK
        self._group = self._at_once if network else self._group_of(rows, blocks)
        groups = triton.cdiv(rows, self._group)
        dtype = self.gradients(call.products)
        logits = self.logits(call.products)
        amount = call.targets.numel() * call.experts * call.words
        counted = call.of_operands and self.counts_knots(call.pointwise, amount, device)
        self._knots, self._plif = None, None
        # Triton's kernel for the gradient is also what takes the sums otherwise.
        if counted or (not call.of_operands and self._in_shared_memory(call.pointwise, amount, device)):
            shared = Pieces(call, logits, dtype, self._width)
            if counted:
                self._knots = KnotSums(call, shared, self.tuning.window)
            table, most = self._function.table, self.tuning.looked_up
            if most > 0 and table is not None:
                self._plif = PlifRows(call, shared, table, rows, most)
        sums = groups if self._plif is None else self._plif.groups
        self._bias_sums = torch.zeros(sums if call.of_bias else 0, self._width, device=device)
        apart = counted or (logits != dtype and call.of_logits)
        self._out = torch.empty(rows, self._width, dtype=dtype, device=device) if apart else None
        self._sums, self._form, self._fixed = self._parameter_sums(blocks * groups)
        if call.of_operands and network:
            self._network = torch.zeros(1 + 3 * self._function.size, device=device)

    @classmethod
    def logits(cls, products: Products) -> torch.dtype:
        """The operands' own dtype; for float16, float32 unless told otherwise."""
        narrow = products.operand_dtype
        return products.dtype if cls.tuning.wide_logits and narrow is torch.float16 else narrow

    @classmethod
    def gradients(cls, products: Products) -> torch.dtype:
        """float16 for TF32: its ten bits of mantissa are TF32's own, at twice the rate and from any layout.

        What is lost is range: float16 ends at 65,504, which no context or weight that trains comes near, and a
        gradient, scaled to the row weights, is exact to those ten bits down to 2^-24 of the largest.
        """
        return torch.float16 if products.tf32 and cls.tuning.half_gradients else products.operand_dtype

    @classmethod
    def counts_knots(cls, pointwise: Pointwise, logits: int, device: torch.device) -> bool:
        """Whether the sums of PLIF's pieces over so many logits are taken by :class:`KnotSums`."""
        learned = isinstance(pointwise, Plif) and pointwise.raw_slopes.requires_grad
        return learned and cls.tuning.window > 0 and cls._in_shared_memory(pointwise, logits, device)

    @classmethod
    def _in_shared_memory(cls, pointwise: Pointwise, logits: int, device: torch.device) -> bool:
        """Whether it pays to keep PLIF's pieces there, and can be done."""
        return logits >= cls.tuning.cuda_from and pieces.applies(pointwise, device)

    @classmethod
    def width(cls, words: int) -> int:
        """The next size that cuBLAS likes."""
        return -(-words // _ALIGN) * _ALIGN

    def _shared(self) -> dict[str, Any]:
        """What every kernel is compiled for."""
        return {"BIAS": self.call.bias is not None, "FUNCTION": self._function.kind, "COUNT": self._function.size}

    def _elementwise(self) -> tuple[Tensor, Tensor, float, float]:
        """The bias, and g: its table and its numbers. Triton wants a pointer even where the kernel never reads it."""
        function, bias = self._function, self.call.bias
        table = self._log_p if function.table is None else function.table
        return self._log_p if bias is None else bias, table, function.a, function.b

    def _score(self, z: Tensor, tokens: slice) -> None:
        """Log-normalisers of the rows, the tokens' losses, and the experts' shares."""
        call, tuning, unused = self.call, self.tuning, self._log_p
        rows, experts = z.shape[0], call.experts
        bias, table, a, b = self._elementwise()
        of_prior = None if self.of_log_prior is None else self.of_log_prior[tokens]
        log_eps = math.log(call.eps) if call.eps > 0 else 0.0
        if self._plif is not None:
            self._plif.statistics(z, tokens, self._log_normaliser, self._share, self.nll[tokens], of_prior, log_eps)
            return
        kernels.statistics[(triton.cdiv(rows, self._at_once),)](
            z,
            bias,
            self._targets[tokens],
            table,
            self._log_normaliser,
            self._log_p,
            z.stride(0),
            rows,
            experts,
            a,
            b,
            WORDS=call.words,
            WHOLE=call.words - call.words % self._statistics_block,
            ROWS=self._at_once,
            BLOCK=self._statistics_block,
            STAGES=self._stages,
            num_warps=tuning.warps,
            **self._shared(),
        )
        uniform = isinstance(call.row_weight, float)
        kernels.mix[(triton.cdiv(rows // experts, 16),)](
            self._log_p,
            unused if call.log_prior is None else call.log_prior[tokens],
            unused if isinstance(call.row_weight, float) else call.row_weight[tokens],
            self.nll[tokens],
            self._share,
            unused if of_prior is None else of_prior,
            rows // experts,
            experts,
            log_eps,
            call.row_weight if isinstance(call.row_weight, float) else 0.0,
            MIXED=call.log_prior is not None,
            UNIFORM=uniform,
            EPS=call.eps > 0,
            OF_PRIOR=of_prior is not None,
            EXPERTS=triton.next_power_of_2(experts),
            TOKENS=16,
            num_warps=1,
        )

    def run(self, z: Tensor, tokens: slice, scale: Tensor | float) -> Tensor | None:
        """See :meth:`RowPass.run`."""
        self._score(z, tokens)
        if not self.call.of_logits:
            return None
        out = z if self._out is None else self._out[: z.shape[0]]
        if self._plif is not None:
            of_bias = self._bias_sums if self.call.of_bias else None
            self._plif.gradient(z, out, self._log_normaliser, self._share, scale, of_bias)
        else:
            self._differentiate(z, out, tokens, scale)
        if self._knots is not None:
            self._knots.add(z, out, scale)
        return out

    def _differentiate(self, z: Tensor, out: Tensor, tokens: slice, scale: Tensor | float) -> None:
        """The gradient of the scored logits into ``out``."""
        call, function, tuning = self.call, self._function, self.tuning
        rows, unused = z.shape[0], self._log_p
        bias, table, a, b = self._elementwise()
        groups = triton.cdiv(rows, self._group)
        triton_gradient.gradient[(triton.cdiv(self._width, self._block), groups)](
            z,
            out,
            bias,
            self._targets[tokens],
            table,
            self._log_normaliser,
            self._share,
            scale if isinstance(scale, Tensor) else unused,
            self._bias_sums if call.of_bias else unused,
            unused if self._sums is None else self._sums,
            unused if self._fixed is None else self._fixed,
            z.stride(0),
            out.stride(0),
            rows,
            call.experts,
            a,
            b,
            scale if isinstance(scale, float) else 1.0,
            WIDTH=self._width,
            OF_BIAS=call.of_bias,
            SCALE=2 if isinstance(scale, Tensor) else int(scale != 1.0),
            SUMS=self._form,
            COPIES=1 if self._form == 3 else tuning.copies,
            GROUP=self._group,
            ROWS=self._at_once,
            BLOCK=self._block,
            WORDS=call.words,
            STAGES=self._stages,
            num_warps=tuning.warps,
            **self._shared(),
        )
        if self._form and function.kind == NETWORK and self._sums is not None:
            programs = groups * triton.cdiv(self._width, self._block)
            self._network += self._sums[:programs].sum(0)

    def finish(self) -> None:
        """See :meth:`RowPass.finish`."""
        call, count = self.call, self._function.size
        if call.of_bias:
            self.of_bias = self._bias_sums.sum(0)[: call.words]
        if self._knots is not None:
            self.of_operands = self._knots.finish()
        if not self._form or self._sums is None:
            return
        if self._function.kind == NETWORK:
            linear, u, b, v = torch.split(self._network, [1, count, count, count])
            self.of_operands = (linear.view(()), u, b, v)
            return
        sums = self._sums.sum(0) if self._fixed is None else self._sums[0].double() / self._fixed.double()
        self.of_operands = tuple(sums.float().t().contiguous())

    def _rows_at_once(self, rows: int) -> int:
        """Rows of a tile: one where they are few, so that every multiprocessor has programs to run."""
        at_once = self.tuning.rows
        while at_once > 1 and rows < 1024 * at_once:
            at_once //= 2
        return at_once

    def _group_of(self, rows: int, blocks: int) -> int:
        """Rows of a program of the gradient's kernel: many, to sum over, where enough programs remain."""
        # Few sizes, since each is a kernel of its own; the last for grids, whose second side ends at 65,535.
        sizes = (4, 8, 16, 32, 64)
        enough = [size for size in sizes if rows * blocks >= size * self.tuning.programs]
        return max(sizes[0], *enough, int(triton.next_power_of_2(rows // 32_768)))

    def _parameter_sums(self, programs: int) -> tuple[Tensor | None, int, Tensor | None]:
        """Where g's own gradients are summed, how (SUMS of the kernel), and the fixed point's factors."""
        call, function = self.call, self._function
        device = call.targets.device
        if not call.of_operands or self._knots is not None:
            return None, 0, None
        if function.kind == NETWORK:
            return torch.empty(programs, 1 + 3 * function.size, device=device), 1, None
        assert isinstance(call.pointwise, Plif)
        if call.pointwise.deterministic:
            # The sum of |dL/dt| is at most twice that of the row weights; 2^11 is room for logits beyond the bound.
            fixed = torch.full((2,), 2.0**59, device=device)
            fixed[:1] *= 2.0**-11
            weight = call.row_weight
            if isinstance(weight, float):
                weight = torch.full((), weight * call.targets.numel(), device=device)
            fixed *= power_of_two(weight.abs().sum(), 1.0)
            return torch.zeros(1, function.size, 2, dtype=torch.int64, device=device), 3, fixed
        form = 2 if self.tuning.vector_atomics and _vector_atomics(device) else 1
        return torch.zeros(self.tuning.copies, function.size, 2, device=device), form, None


def _vector_atomics(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
