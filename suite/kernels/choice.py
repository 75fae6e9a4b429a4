"""Which form of the loss a head trains through."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch

from suite.errors import InputError
from suite.models.heads.pointwise import GeneralizedSigsoftmax, Identity, Pointwise

Kernel = Literal["reference", "chunked", "triton"]


def choose(asked: Kernel | Literal["auto"], device: torch.device, pointwise: Pointwise) -> Kernel:
    """The kernel for a head: what the recipe asks for, or the fastest that knows its function on this device.

    The row kernels know the identity and the GSS family, sigsoftmax included; every other function, and every CPU,
    takes the chunked form.

    Raises:
        InputError: the recipe asks for Triton where it cannot run.
    """
    if asked in ("reference", "chunked"):
        return asked
    obstacle = _obstacle(device, pointwise)
    if asked == "triton" and obstacle:
        raise InputError(f"recipe.kernel: triton {obstacle}; use auto or chunked")
    return "chunked" if obstacle else "triton"


def _obstacle(device: torch.device, pointwise: Pointwise) -> str | None:
    if device.type != "cuda":
        return "needs a GPU"
    # Exactly these classes: a subclass may have another forward.
    if type(pointwise).forward not in (Identity.forward, GeneralizedSigsoftmax.forward):
        return f"does not know the function {type(pointwise).__name__}"
    if importlib.util.find_spec("triton") is None:
        return "is not installed"
    return None
