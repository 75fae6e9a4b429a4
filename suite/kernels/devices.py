"""What kernels of our own need to be there."""

from __future__ import annotations

import importlib.util

import torch


def runs_triton(device: torch.device) -> bool:
    """Whether Triton's kernels can run on a device: a GPU, and Triton, which torch's builds for one bring."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None
