"""Files of tensors, read whole or not at all and without executing anything."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from suite.errors import RunFailed, printable


def load_tensors(path: Path, device: torch.device) -> Any:
    """Read a file of tensors and plain values, whole; anything that would run code is refused by torch.

    Raises:
        RunFailed: it is missing, damaged (also where torch would not notice: a flipped bit among the numbers), or
            holds more than tensors and plain values.
    """
    try:
        # torch.save keeps a checksum of every member, and torch.load looks at none.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"the checksum of {broken} does not fit")
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zipfile, zlib, pickle and torch each raise their own over a damaged file
        words = str(error).splitlines()
        reason = printable(words[0])[:200] if words else type(error).__name__
        raise RunFailed(f"{path.name} is damaged ({reason})") from error


def load_weights(model: nn.Module, path: Path, device: torch.device) -> dict[str, Tensor]:
    """Put a state dict kept by :func:`save_atomically` into a model, and return it.

    Raises:
        RunFailed: the file is damaged, or holds the weights of another model.
    """
    weights: dict[str, Tensor] = load_tensors(path, device)
    if not isinstance(weights, dict):
        raise RunFailed(f"{path.name} holds no weights")
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(getattr(value, "shape", ())) for name, value in weights.items()}
    if ours != theirs:
        odd = next(name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name))
        told = [str(list(shapes[odd])) if odd in shapes else "nothing" for shapes in (theirs, ours)]
        raise RunFailed(
            f"{path.name} holds the weights of another model: {odd} is {told[0]} there and {told[1]} here; "
            "run it again with --rerun"
        )
    model.load_state_dict(weights)
    return weights
