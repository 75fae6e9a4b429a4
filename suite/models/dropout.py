"""The dropouts of AWD-LSTM (Merity et al. 2018, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def locked_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Variational dropout (Gal and Ghahramani 2016): one mask for all time steps.

    Args:
        x: [T, B, features]; the mask is shared along T. A [N, features] input has no time and gets a mask a row.
        p: probability of dropping.
        training: no-op when False.
    """
    if not training or p == 0.0:
        return x
    shape = (1, *x.shape[1:]) if x.dim() == 3 else x.shape
    # A 0/1 mask scaled by a Python number: 1 / (1 - p) stored in a low-precision mask would be off.
    mask = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - p)
    return x * mask * (1.0 / (1.0 - p))


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
    if training and p > 0.0:
        mask = torch.empty((weight.shape[0], 1), dtype=weight.dtype, device=weight.device).bernoulli_(1.0 - p)
        weight = weight * mask * (1.0 / (1.0 - p))
    return functional.embedding(tokens, weight)
