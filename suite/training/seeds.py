"""Random streams derived from the run's seed and what they are for, and whether kernels must repeat bit for bit."""

from __future__ import annotations

import hashlib
import os

import torch

from suite.spec.recipe import Recipe


def derive_seed(seed: int, *axes: str) -> int:
    """A 63-bit seed from the run's seed and named axes: ``derive_seed(1, "initialisation")``."""
    digest = hashlib.sha256("/".join([str(seed), *axes]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def set_determinism(recipe: Recipe, device: torch.device) -> None:
    """Ask torch for kernels that repeat bit for bit, or not; process-wide, so every run says which."""
    if recipe.deterministic and device.type == "cuda":
        # cuBLAS repeats bit for bit only with a workspace of its own; read at its first use in the process.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(recipe.deterministic)
