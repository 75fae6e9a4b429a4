"""One LSTM layer on a GPU, in the arithmetic asked for, from float32 master weights.

PyTorch's own LSTM would copy, cast and drop weights in separate passes. Here one pass makes the weights that the
kernels read (cast, weight-dropped and zero-padded), and one pass turns their gradient back. Padding with zeros is
exact: a padded unit has g = tanh(0) = 0, so its cell and hidden state stay 0, and the gradients of its weights are 0.

The suite's own kernels keep the recurrent matrix on chip (:mod:`.recurrence_persistent`) in float16, bfloat16 and TF32,
up to what the multiprocessors' shared memory and registers hold together. Beyond that, on older GPUs, and in float32
proper, cuDNN runs. It keeps the matrix on chip only for float16, sizes that are multiples of 128, a hidden size of at
most 1,024 and a batch that is a multiple of 8.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from suite.kernels import cuda_source
from suite.models.dropout import Layout
from suite.models.encoders.recurrence_persistent import LARGEST_BATCH, Plan, persistent_layer, plan
from suite.models.encoders.recurrence_weights import Sizes, pack, unpack

Kernels = Literal["own", "cudnn"]

_LSTM = 2  # cuDNN's mode number
_WHOLE = 4  # units in the 16 bytes that rows of the suite's kernels are made of, in float32; half precision has more
_BATCH = 8
_ROUNDED = {torch.float16: 128, torch.bfloat16: 64}
_OURS = 16
_PIECE = 128  # time steps


def room(features: int, batch: int, dtype: torch.dtype, device: torch.device, kernels: Kernels | None = None) -> Layout:
    """How a layer is given its input or state of ``features``: in half precision rounded up to what its kernels like.

    Sizes beyond cuDNN's persistent kernels are still several times slower there where they are not even multiples of 8.
    """
    if device.type != "cuda" or dtype not in _ROUNDED:
        return Layout(batch, features, dtype)
    if kernels != "cudnn" and batch <= LARGEST_BATCH and cuda_source.available(device):
        return Layout(batch, _up(features, _OURS), dtype)
    return Layout(_up(batch, _BATCH) if dtype == torch.float16 else batch, _up(features, _ROUNDED[dtype]), dtype)


def _up(size: int, part: int) -> int:
    return -(-size // part) * part


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


def own_kernels(
    hidden: int,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    kernels: Kernels | None = None,
    crowded: bool = False,
) -> Plan | None:
    """How the suite's kernels run a layer of ``hidden`` padded units; None where cuDNN is to (:func:`lstm_layer`)."""
    strict = dtype == torch.float32 and not torch.backends.cudnn.allow_tf32
    if kernels == "cudnn" or (kernels is None and strict):
        return None
    found = plan(hidden, batch, dtype, device, crowded)
    if kernels == "own" and found is None:
        raise ValueError(f"no kernel of ours runs {hidden} units, {batch} sequences, {dtype} on {device}")
    return found


def lstm_layer(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: list[Tensor],
    mask: Tensor | None,
    scale: float,
    kernels: Kernels | None = None,
    crowded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer over a segment on a GPU: its output and the state after it, padded as the input is.

    Args:
        x: [T, B, I] in the dtype to compute in, padded (:func:`room`).
        h: [1, B, H] in that dtype; it and ``c`` get no gradient: back-propagation ends at a segment's edge.
        c: [1, B, H].
        weights: float32 masters [4 H, I], [4 H, H], [4 H], [4 H].
        mask: [4 H, H] of 0 and 1 for the recurrent matrix, or None.
        scale: factor on the recurrent weights that are kept.
        kernels: whose to use (``own`` computes float32 in TF32); by default the suite's where they can.
        crowded: other runs share the GPU, so the suite's kernels are to leave half of it to them.
    """
    inputs, hidden = weights[0].shape[1], weights[1].shape[1]
    wide, wider = (room(size, x.shape[1], x.dtype, x.device, kernels).features for size in (inputs, hidden))
    whole = _up(wider, _WHOLE)
    found = own_kernels(whole, x.shape[1], x.dtype, x.device, kernels, crowded)
    if found is not None:
        return persistent_layer(x, h, c, weights, mask, scale, Sizes(inputs, hidden, wide, whole), found)
    sizes = Sizes(inputs, hidden, wide, wider)
    y, last_h, last_c = _CudnnLstm.apply(x, h, c, sizes, mask, scale, *weights)  # type: ignore[no-untyped-call]
    return y, last_h, last_c


def evaluated_layer(
    x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor], crowded: bool = False
) -> tuple[Tensor, Tensor, Tensor] | None:
    """:func:`lstm_layer` where no gradient is wanted, by the suite's kernels; None where these cannot run the layer.

    In pieces, so that a long segment takes no more memory than a short one: the kernels keep the gates of every step.
    """
    whole = _up(room(weights[1].shape[1], x.shape[1], x.dtype, x.device).features, _WHOLE)
    if own_kernels(whole, x.shape[1], x.dtype, x.device, crowded=crowded) is None:
        return None
    outputs = []
    for piece in torch.split(x, _PIECE):
        y, h, c = lstm_layer(piece, h, c, weights, None, 1.0, crowded=crowded)
        outputs.append(y)
    return torch.cat(outputs), h, c
