"""One LSTM layer on a GPU, in the arithmetic asked for, from float32 master weights.

PyTorch's own LSTM would copy, cast and drop weights in separate passes and lose cuDNN's persistent kernels. Here one
pass makes the weights that cuDNN reads (cast, weight-dropped and zero-padded), and one pass turns their gradient back.

cuDNN keeps the recurrent matrix on chip only for float16, sizes that are multiples of 128, a hidden size of at most
1,024 and a batch that is a multiple of 8. Padding with zeros is exact: a padded unit has g = tanh(0) = 0, so its cell
and hidden state stay 0, and the gradients of its weights are 0.

Where cuDNN cannot, the suite's own kernels keep it on chip (:mod:`.recurrence_persistent`): bfloat16, TF32, and sizes
up to what the multiprocessors' shared memory and registers hold together. Beyond that, and in float32 proper, cuDNN
runs its ordinary kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suite.models.encoders.recurrence_weights import Sizes, pack, unpack

if TYPE_CHECKING:
    from suite.models.encoders.recurrence_persistent import Plan

_LSTM = 2  # cuDNN's mode number
_PERSISTENT = 1024  # hidden units that cuDNN's persistent kernels take
_WHOLE = 4  # units in the 16 bytes that rows of the suite's kernels are made of, in float32; half precision has more
_BATCH = 8
_ROUNDED = {torch.float16: 128, torch.bfloat16: 64}


def padded(size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Features of a layer of ``size`` as cuDNN is given it, in half precision rounded up to what its kernels like.

    Sizes beyond the persistent kernels are still several times slower where they are not even multiples of 8.
    """
    if device.type != "cuda" or dtype not in _ROUNDED:
        return size
    return -(-size // _ROUNDED[dtype]) * _ROUNDED[dtype]


def padded_batch(batch: int, dtype: torch.dtype, device: torch.device) -> int:
    """Columns of a batch as cuDNN is given it."""
    return -(-batch // _BATCH) * _BATCH if dtype == torch.float16 and device.type == "cuda" else batch


class _CudnnLstm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        sizes: Sizes,
        mask: Tensor | None,
        scale: float,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        packed = pack([w.detach() for w in weights], mask, scale, sizes, x.dtype)
        y, last_h, last_c, reserve, _ = torch._cudnn_rnn(
            x, sizes.views(packed), 4, packed, h, c, _LSTM, sizes.wide_hidden, 0, 1, False, 0.0, True, False, [], None
        )
        ctx.save_for_backward(x, packed, h, c, y, reserve, *([] if mask is None else [mask]))
        ctx.sizes, ctx.scale = sizes, scale
        ctx.mark_non_differentiable(last_h, last_c)
        return y, last_h, last_c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor, _of_h: Tensor, _of_c: Tensor) -> tuple[Tensor | None, ...]:
        x, packed, h, c, y, reserve, *masks = ctx.saved_tensors
        sizes: Sizes = ctx.sizes
        of_x, _, _, of_weights = torch.ops.aten._cudnn_rnn_backward(
            x,
            sizes.views(packed),
            4,
            packed,
            h,
            c,
            y,
            of_y.contiguous(),
            None,
            None,
            _LSTM,
            sizes.wide_hidden,
            0,
            1,
            False,
            0.0,
            True,
            False,
            [],
            None,
            reserve,
            [True, False, False, True],
        )
        whole = _joined(of_weights, sizes)
        return of_x, None, None, None, None, None, *unpack(whole, masks[0] if masks else None, ctx.scale, sizes)


def _joined(parts: list[Tensor], sizes: Sizes) -> Tensor:
    """The buffer that cuDNN's weight gradients are views of; a joined copy should they ever not be."""
    first = parts[0]
    offset = first.storage_offset()
    for part in parts:
        if part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr() or part.storage_offset() != offset:
            return torch.cat([p.reshape(-1) for p in parts])
        offset += part.numel()
    return first.as_strided((sizes.packed,), (1,))


def _own_kernels(x: Tensor, hidden: int, kernels: Literal["own", "cudnn"] | None) -> Plan | None:
    """How the suite's kernels run a layer of ``hidden`` padded units on ``x``; None where cuDNN is to."""
    strict = x.dtype == torch.float32 and not torch.backends.cudnn.allow_tf32
    if kernels == "cudnn" or (kernels is None and (strict or (x.dtype == torch.float16 and hidden <= _PERSISTENT))):
        return None
    from suite.models.encoders.recurrence_persistent import plan

    found = plan(hidden, x.shape[1], x.dtype, x.device)
    if kernels == "own" and found is None:
        raise ValueError(f"no kernel of ours runs {hidden} units, {x.shape[1]} sequences, {x.dtype} on {x.device}")
    return found


def lstm_layer(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: list[Tensor],
    mask: Tensor | None,
    scale: float,
    kernels: Literal["own", "cudnn"] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer over a segment on a GPU: its output and the state after it, padded as the input is.

    Args:
        x: [T, B, I] in the dtype to compute in, padded (:func:`padded`).
        h: [1, B, H] in that dtype; it and ``c`` get no gradient: back-propagation ends at a segment's edge.
        c: [1, B, H].
        weights: float32 masters [4 H, I], [4 H, H], [4 H], [4 H].
        mask: [4 H, H] of 0 and 1 for the recurrent matrix, or None.
        scale: factor on the recurrent weights that are kept.
        kernels: whose to use (``own`` computes float32 in TF32); by default the faster ones for the arithmetic.
    """
    inputs, hidden = weights[0].shape[1], weights[1].shape[1]
    sizes = Sizes(inputs, hidden, padded(inputs, x.dtype, x.device), padded(hidden, x.dtype, x.device))
    whole = -(-sizes.wide_hidden // _WHOLE) * _WHOLE
    layout = _own_kernels(x, whole, kernels)
    if layout is not None:
        from suite.models.encoders.recurrence_persistent import persistent_layer

        return persistent_layer(x, h, c, weights, mask, scale, sizes._replace(wide_hidden=whole), layout)
    y, last_h, last_c = _CudnnLstm.apply(x, h, c, sizes, mask, scale, *weights)  # type: ignore[no-untyped-call]
    return y, last_h, last_c
