"""Random streams derived from the run's seed and what they are for, so that one never disturbs another."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *axes: str) -> int:
    """A 63-bit seed from the run's seed and named axes: ``derive_seed(1, "initialisation")``."""
    digest = hashlib.sha256("/".join([str(seed), *axes]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
