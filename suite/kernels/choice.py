"""Which form of the loss a head trains through."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from suite.errors import InputError
from suite.kernels.devices import runs_triton
from suite.models.heads.learnable import MonotonicNetwork, Plif
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise

Kernel = Literal["reference", "chunked", "triton"]
# Below so many logits a CPU is faster with the materialised form: what it keeps is small, and it takes fewer steps.
TINY = 50_000
_KNOWN = (Identity, GeneralizedSigsoftmax, Plif, MonotonicNetwork)


def choose(
    asked: Kernel | Literal["auto"], contexts: Tensor, pointwise: Pointwise, experts: int, vocabulary: int
) -> Kernel:
    """The kernel for a call: what the recipe asks for, or the fastest for its device, dtype, size and function.

    Args:
        asked: the recipe's option.
        contexts: any tensor with the dtype and on the device of the call, [..., H], a row a token.
        pointwise: the function on the logits; the row kernels know the built-in ones.
        experts: K.
        vocabulary: V.

    Raises:
        InputError: the recipe asks for Triton where it cannot run.
    """
    if asked in ("reference", "chunked"):
        return asked
    obstacle = _obstacle(contexts, pointwise)
    if asked == "triton" and obstacle:
        raise InputError(f"recipe.kernel: triton {obstacle}; use auto or chunked")
    if obstacle is None:
        return "triton"
    logits = contexts.shape[:-1].numel() * experts * vocabulary
    return "reference" if contexts.device.type == "cpu" and logits < TINY else "chunked"


def _obstacle(contexts: Tensor, pointwise: Pointwise) -> str | None:
    if contexts.device.type != "cuda":
        return "needs a GPU"
    if contexts.dtype is not torch.float32:
        return f"needs float32 contexts, not {str(contexts.dtype).removeprefix('torch.')}"
    # Exactly these classes: a subclass may have another forward.
    if type(pointwise).forward not in [known.forward for known in _KNOWN]:
        return f"does not know the function {type(pointwise).__name__}"
    if not runs_triton(contexts.device):
        return "is not installed"
    return None
