"""The model as a stage borrows it: which dropouts act, in what arithmetic, on which weights; all of it given back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suite.models.dropout import drawing_from
from suite.spec.recipe import Arithmetic


@contextmanager
def differentiable(model: nn.Module, arithmetic: Arithmetic, keep: Sequence[str] = ()) -> Iterator[None]:
    """Put the model in training mode with its dropouts at 0, for gradients without noise.

    Training mode, because cuDNN's recurrences have no backward pass in evaluation mode. Every dropout probability is
    an attribute with "drop" in its name (``p`` of torch's own dropout modules); those named in ``keep`` stay as they
    are. Modes, probabilities and arithmetic are put back at the end.

    Args:
        model: any module.
        arithmetic: what the modules that can choose compute in.
        keep: attributes left alone, such as ``("weight_drop",)``.
    """
    changed: list[tuple[nn.Module, str, Any]] = [(module, "training", module.training) for module in model.modules()]
    for module in model.modules():
        for name, value in list(vars(module).items()):
            is_dropout = isinstance(value, float) and ("drop" in name or (name == "p" and _is_torch_dropout(module)))
            if is_dropout and name not in keep:
                changed.append((module, name, value))
                setattr(module, name, 0.0)
            elif name == "arithmetic":
                changed.append((module, name, value))
                setattr(module, name, arithmetic)
    model.train()
    try:
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


def _is_torch_dropout(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.dropout._DropoutNd)


@contextmanager
def weights_restored(parameters: Sequence[nn.Parameter]) -> Iterator[list[Tensor]]:
    """Yield copies of the parameters as they are, and put these back at the end, however the block ends."""
    before = [p.detach().clone() for p in parameters]
    try:
        yield before
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(parameters), before)


@contextmanager
def own_random_stream(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators for the block, and leave them at its end as they were found."""
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), drawing_from(None):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


@contextmanager
def restored_modes(model: nn.Module) -> Iterator[None]:
    """Put every module back in the mode (training or evaluation) it has now, at the end of the block."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
