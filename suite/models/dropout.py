"""The dropouts of AWD-LSTM (Merity et al. 2018, section 4). Every mask of a training step is drawn here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.profiler import record_function

from suite.kernels.devices import runs_triton

# A run's own stream on a GPU, where several runs may share torch's; None draws from torch's.
_generator: ContextVar[torch.Generator | None] = ContextVar("mask_generator", default=None)


@contextmanager
def drawing_from(generator: torch.Generator | None) -> Iterator[None]:
    """Draw the masks of the block from ``generator``, on the device it belongs to."""
    token = _generator.set(generator)
    try:
        yield
    finally:
        _generator.reset(token)


def draw_mask(shape: Sequence[int], p: float, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """0/1 mask of ``shape``, each element 0 with probability ``p``, on the device and (or) in the dtype of ``like``.

    The factor 1 / (1 - p) belongs to whoever applies the mask, as a Python number: stored in a low-precision mask it
    would be off.
    """
    with record_function("masks"):
        mask = torch.empty(tuple(shape), dtype=dtype or like.dtype, device=like.device)
        return mask.bernoulli_(1.0 - p, generator=_generator.get())


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Ordinary dropout: a mask an element."""
    return x * draw_mask(x.shape, p, x) * (1.0 / (1.0 - p)) if training and p > 0.0 else x


class Layout(NamedTuple):
    """What the next layer takes [T, batch, features] as: filled up with zeros, in a dtype."""

    batch: int
    features: int
    dtype: torch.dtype


def locked_dropout(x: Tensor, p: float, training: bool, layout: Layout | None = None) -> Tensor:
    """Variational dropout (Gal and Ghahramani 2016): one mask for all time steps.

    Args:
        x: [T, B, features]; the mask is shared along T.
        p: probability of dropping.
        training: nothing is dropped when False.
        layout: of the result; that of ``x`` when None.
    """
    wanted = layout or Layout(x.shape[1], x.shape[2], x.dtype)
    if training and p > 0.0:
        mask, scale = draw_mask((1, *x.shape[1:]), p, x), 1.0 / (1.0 - p)
        if runs_triton(x.device) and x.dtype is not torch.float64:
            from suite.models.dropout_triton import locked

            return locked(x, mask, scale, *wanted)
        x = x * mask * scale
    extra = (0, wanted.features - x.shape[2], 0, wanted.batch - x.shape[1])
    return functional.pad(x.to(wanted.dtype), extra) if any(extra) else x.to(wanted.dtype)


def word_dropout_embedding(tokens: Tensor, weight: Tensor, p: float, training: bool) -> Tensor:
    """Embedding look-up that drops whole words: every occurrence of a dropped type in the batch is zero.

    Args:
        tokens: [T, B], word ids.
        weight: [V, E].
        p: probability of dropping a type.
        training: no dropping when False.

    Returns:
        [T, B, E].
    """
    found = functional.embedding(tokens, weight)
    if not training or p == 0.0:
        return found
    # Applied to the words that are looked up: the whole embedding is far more.
    return found * functional.embedding(tokens, draw_mask((weight.shape[0], 1), p, weight)) * (1.0 / (1.0 - p))
